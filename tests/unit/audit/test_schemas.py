import inspect

import msgspec
import pytest

from holdfast.audit.schemas import SCHEMAS, VERSIONS, RecordType, check
from holdfast.core.errors import BadInput


@pytest.mark.parametrize("type_", list(RecordType))
def test_every_record_type_has_a_schema_with_a_version_and_documented_keys(type_):
    """Each record type has a schema, a version, and one line of documentation per key."""
    schema = SCHEMAS[type_]
    assert VERSIONS[type_] >= 1
    for field in msgspec.structs.fields(schema):
        assert f"\n    {field.name}: " in inspect.getdoc(schema), f"{type_}: {field.name} is not documented"


def test_record_without_a_required_key_is_refused():
    """A TRADE without its price is refused by name."""
    with pytest.raises(BadInput, match="TRADE record refused: lacks market, price"):
        check("TRADE", {"order_id": "1", "side": "bid", "quantity": "1.00"})


@pytest.mark.invariant("I11")
def test_money_as_a_float_is_refused():
    """A float where money, price or quantity belongs is refused."""
    details = {"order_id": "1", "side": "bid", "quantity": "1.00", "price": 0.56, "market": "M"}
    with pytest.raises(BadInput, match=r"price is the float 0\.56"):
        check("TRADE", details)
    check("TRADE", details | {"price": "0.56"})


def test_more_keys_and_unknown_types_pass():
    """Keys and types that this version does not know are kept."""
    check("NEWER", {})
    check("DEPOSIT", {"amount": "5.00", "new": 1.5})
    check("CONFIG", {"any.key": 1})
