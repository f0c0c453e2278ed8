"""Whether a trainer keeps what every run relies on, after scikit-learn's `check_estimator`."""
