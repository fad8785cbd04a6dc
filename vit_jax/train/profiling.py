"""A trace of chosen steps, to be looked at with XProf or TensorBoard.

FOLDER/plugins/profile/TIME/HOST.xplane.pb is where both look for it:
`tensorboard --logdir=FOLDER` after `pip install xprof`. Each step is an event `train` with its
number, `step_num`, from the wait for its batch to the start of the next step; within it stand what
the devices compute and the host's phases, by the names that `RunLogger.timing` is given. Python's
own calls are left out, since recording them would slow down what is measured.

With several processes the first traces: all of them run the same program.
"""

from pathlib import Path

import jax


class StepTrace:
    """Traces the steps from `first` to `last`, both included and counted from 1.

    A run that resumes between them traces the rest; one that resumes after them traces nothing.
    """

    def __init__(self, folder: Path, *, first: int, last: int):
        self._folder, self._first, self._last = folder, first, last
        self._is_on, self._annotation = False, None

    def ends_before(self, step: int) -> bool:
        """Does `begin(step)` write the trace? What must be in it has to be done by then."""
        return self._is_on and step > self._last

    def begin(self, step: int) -> None:
        """Ends the step before, and begins this one."""
        self._end_step()
        if self.ends_before(step):
            self.close()
        if self._first <= step <= self._last:
            if not self._is_on:
                self._start()
            self._annotation = jax.profiler.StepTraceAnnotation("train", step_num=step)
            self._annotation.__enter__()  # left in `_end_step`

    def close(self) -> None:
        """Writes the trace, if one has begun."""
        self._end_step()
        if self._is_on:
            self._is_on = False
            jax.profiler.stop_trace()

    def _start(self) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        jax.profiler.start_trace(self._folder, profiler_options=options)
        self._is_on = True

    def _end_step(self) -> None:
        if self._annotation is not None:
            self._annotation.__exit__(None, None, None)
            self._annotation = None
