"""What of a run is shown."""

from __future__ import annotations

import io

from causalclip.runs.progress import BriefStream


def test_brief_progress_is_one_line_an_epoch_however_many_were_printed():
    printed = ["Loading", "epoch [1/2] batch [20/50]", "epoch [1/2] batch [40/50]"]
    printed += ["epoch [2/2] batch [20/50]", "epoch [2/2] batch [40/50]", "done", "* accuracy: 3%"]
    for lines, shown in ((printed, [2, 4, 6]), (printed[:4], [2, 3])):
        console = io.StringIO()
        stream = BriefStream(console)
        print(*lines, sep="\n", file=stream)
        stream.finish()
        assert console.getvalue().splitlines() == [printed[i] for i in shown]
