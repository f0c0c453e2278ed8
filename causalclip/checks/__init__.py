"""Check that a trainer follows the contract of the runs, like scikit-learn's `check_estimator`."""
