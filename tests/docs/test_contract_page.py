"""docs/contract.md says exactly which tests carry which row."""

from docs.contract_table import PAGE, marked, render


def test_the_contract_page_lists_the_tests_that_carry_each_row():
    """The page equals what the markers in the tests say."""
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python tests/docs/contract_table.py"


def test_the_invariants_of_the_spine_each_have_a_property_test():
    """I1, I2, I3, I4, I7, I11 and I12 are each carried by at least one test."""
    carried = {str(number).removeprefix("I") for number in marked("invariant")}
    assert {"1", "2", "3", "4", "7", "11", "12"} <= carried
