"""The mutations fit the code: whoever moves code moves what breaks it along."""

from __future__ import annotations

import pytest

from .applying import all_mutations, unfit

MUTATIONS = [mutation for mutations in all_mutations().values() for mutation in mutations]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_mutation_fits_the_code(mutation):
    assert unfit(mutation) == ""
    assert mutation.new != mutation.old
    assert mutation.tests


def test_names_are_unique():
    names = [mutation.name for mutation in MUTATIONS]
    assert len(names) == len(set(names)) > 0
