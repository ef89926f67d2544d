"""First on the path of Python, this makes testtools' `skip` do nothing: tests that a suite has disabled with it run.

The suite itself stays as it is. What asks for a microversion still does: that is another decorator.
"""

import testtools


def _run_it(_reason):
    return lambda test: test


testtools.skip = _run_it
