"""The negative control: every wrong backward that can be planted in an op is noticed by the battery.

The table of what was planted and what noticed it is printed at the end of the run (tests/conftest.py).
"""

from collections import Counter

import pytest
from op_specs import SPECS

import tinygrad_llm as tg
from tinygrad_llm.testing import kill_table, mutants


@pytest.mark.filterwarnings("ignore")  # of wrong ops
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_mutant_is_killed(spec, record_property):
    table = kill_table(spec)
    record_property("killed by", dict(Counter(check or "" for check in table.values())))
    assert [fault for fault, check in table.items() if check is None] == []
    assert len(table) >= 15


def test_mutants_have_different_faults_and_stay_out_of_the_registry():
    before = dict(tg.Op.registry)
    made = mutants(tg.Op.registry["linear"])
    assert tg.Op.registry == before
    faults = [m.fault for m in made]
    assert {"dweight: wrong sign", "dbias: factor 1.001", "writes to g", "writes to what is saved"} <= set(faults)
    assert all(m.op.name == "linear" and m.op is not tg.Op.registry["linear"] for m in made)


def test_a_term_in_the_source_is_mutated():
    faults = {m.fault for m in mutants(tg.Op.registry["softmax"])}
    assert any("sign turned" in fault and fault.startswith("line") for fault in faults)


def test_all_mutants_of_an_op_have_names_of_their_own():
    for spec in SPECS:
        faults = [m.fault for m in mutants(spec.op)]
        assert len(set(faults)) == len(faults), spec.name
