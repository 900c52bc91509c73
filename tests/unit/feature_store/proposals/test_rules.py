import math
from collections.abc import Callable

import numpy as np
import pytest

from feature_store.features.schema import feature_schema
from feature_store.proposals.rules import RULES, Proposer, Rule, RuleFailed, UnknownRule, declare, proposer, rule

SCHEMA = feature_schema(["momentum", "rsi", "z_score"], 1)
ROWS = np.random.default_rng(1).normal(0.0, 2.0, (200, 3))


def by_two(z_score: float, rsi: float, level: float = 1.0, least: float = -9.0) -> int:
    if rsi < least:
        return 0
    return 1 if z_score > level else -1 if z_score < -level else 0


def raises(z_score: float, limit: float = 1.5) -> int:
    if z_score > limit:
        raise ValueError("no")
    return 0


def gives_two(z_score: float) -> int:
    return 2 if z_score > 0.0 else 0


def gives_a_half(z_score: float) -> float:
    return 0.5 if z_score > 0.0 else 0.0


def gives_nan(z_score: float) -> float:
    return math.nan if z_score > 0.0 else 0.0


def forgets(z_score: float) -> int:  # type: ignore[return]
    if z_score <= 0.0:
        return 0


def looks_into_a_file(z_score: float) -> int:
    return len(open(str(z_score)).read())  # noqa: PTH123


def asked(function: Callable[..., int], **parameters: float) -> Proposer:
    return Proposer(declare(function, source="tests"), parameters)


# --- asking -----------------------------------------------------------------------------------------------------------


def test_a_rule_gets_its_features_by_name_and_its_parameters_laid_over_its_own() -> None:
    one = asked(by_two, level=2)
    assert one.parameters == {"level": 2.0, "least": -9.0}
    expected = [by_two(z, rsi, 2.0, -9.0) for _, rsi, z in ROWS.tolist()]
    sides = one.sides(ROWS, SCHEMA)
    assert (sides.dtype, sides.tolist()) == (np.dtype(np.int8), expected)
    assert set(expected) == {-1, 0, 1}


def test_what_a_rule_says_of_a_row_depends_on_that_row_alone() -> None:
    one, order = asked(by_two), np.random.default_rng(2).permutation(len(ROWS))
    whole = one.sides(ROWS, SCHEMA)
    np.testing.assert_array_equal(one.sides(ROWS[order], SCHEMA), whole[order])
    assert [int(one.sides(ROWS[k : k + 1], SCHEMA)[0]) for k in range(len(ROWS))] == whole.tolist()
    assert one.sides(ROWS[:0], SCHEMA).shape == (0,)


def test_columns_are_found_in_any_schema_and_rows_may_lie_in_memory_as_they_like() -> None:
    other = feature_schema(["z_score", "volatility", "rsi"], 1)
    rows = ROWS[:, [2, 0, 1]]
    expected = asked(by_two).sides(ROWS, SCHEMA)
    np.testing.assert_array_equal(asked(by_two).sides(np.asfortranarray(rows), other), expected)


def test_it_is_not_asked_where_a_feature_it_looks_at_is_nan() -> None:
    rows = np.array([[math.nan, 50.0, 5.0], [0.0, math.nan, 5.0], [0.0, 50.0, math.nan]])
    assert asked(by_two).sides(rows, SCHEMA).tolist() == [1, 0, 0]
    assert asked(raises).sides(np.array([[0.0, 0.0, math.nan]]), SCHEMA).tolist() == [0]


def test_an_argument_may_take_a_feature_on_longer_bars() -> None:
    found = declare(by_two, source="tests", features={"rsi": "rsi@5m"})
    assert found.features == ("z_score", "rsi@5m")
    schema = feature_schema(["rsi", "rsi@5m", "z_score"], 1)
    expected = asked(by_two).sides(
        np.ascontiguousarray(ROWS[:, [0, 1, 2]]), feature_schema(["beta", "rsi", "z_score"], 1)
    )
    np.testing.assert_array_equal(Proposer(found, {}).sides(ROWS, schema), expected)
    assert found.code_digest == declare(by_two, source="tests").code_digest
    for features, told in (
        ({"rsy": "rsi@5m"}, "the rule by_two has no argument 'rsy' for a feature; did you mean rsi"),
        ({"rsi": "rsj@5m"}, "looks at 'rsj@5m': no feature is named so; did you mean rsi"),
        ({"rsi": "rsi@5"}, "looks at 'rsi@5': '5' is no bar clock"),
    ):
        with pytest.raises(ValueError, match=told):
            declare(by_two, source="tests", features=features)


@pytest.mark.parametrize("function", [gives_two, gives_a_half, gives_nan, forgets])
def test_what_is_no_side_is_named_with_the_rule_and_the_rows_values(function: Callable[..., int]) -> None:
    rows = np.array([[0.0, 50.0, -1.0], [0.0, 50.0, 1.25]])
    told = rf"the rule {function.__name__} failed in row 1, {function.__name__}\(z_score=1.25\): what it gave is none"
    with pytest.raises(RuleFailed, match=told):
        asked(function).sides(rows, SCHEMA)


def test_a_rule_that_raises_is_named_with_the_rows_values_and_its_parameters() -> None:
    rows = np.array([[0.0, 50.0, -1.0], [0.0, 50.0, 1.75]])
    told = r"the rule raises failed in row 1, raises\(z_score=1.75, limit=1.5\): ValueError\('no'\)"
    with pytest.raises(RuleFailed, match=told):
        asked(raises).sides(rows, SCHEMA)


def test_a_rule_that_is_more_than_arithmetic_is_refused_before_any_row() -> None:
    with pytest.raises(RuleFailed, match=r"the rule looks_into_a_file cannot be compiled: .*write it in plain arithm"):
        asked(looks_into_a_file).sides(ROWS[:0], SCHEMA)


def test_rows_must_have_the_columns_of_the_schema_and_the_schema_those_of_the_rule() -> None:
    with pytest.raises(ValueError, match=r"the rows have shape \(200, 2\); the schema has 3 columns"):
        asked(by_two).sides(ROWS[:, :2], SCHEMA)
    with pytest.raises(ValueError, match=r"by_two looks at z_score, and the schema has only rsi, beta; put"):
        asked(by_two).sides(ROWS[:, :2], feature_schema(["rsi", "beta"], 1))


# --- names and numbers ------------------------------------------------------------------------------------------------


def test_an_unknown_rule_is_told_the_nearest_ones_or_all() -> None:
    with pytest.raises(UnknownRule, match="no rule is named 'donchian_brake'; did you mean donchian_break"):
        proposer("donchian_brake")
    with pytest.raises(UnknownRule, match="there are volatility_move, stretch, donchian_break"):
        proposer("xyz")


def test_an_unknown_parameter_is_told_the_nearest_ones() -> None:
    with pytest.raises(ValueError, match="the rule stretch has no parameter 'treshold'; did you mean threshold"):
        proposer("stretch", {"treshold": 1.0})


@pytest.mark.parametrize("value", [math.nan, math.inf, True, "2", None])
def test_a_parameter_is_a_finite_number(value: object) -> None:
    with pytest.raises(ValueError, match=r"threshold of the rule stretch is .*; a parameter is a finite number"):
        proposer("stretch", {"threshold": value})  # type: ignore[dict-item]


def test_a_declaration_that_cannot_be_asked_is_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match=r"the rule sees_momentun looks at 'momentun'.*did you mean momentum"):
        declare(sees_momentun, source="tests")
    with pytest.raises(ValueError, match="the rule blind looks at no feature"):
        declare(blind, source="tests")
    with pytest.raises(ValueError, match="level of the rule vague is 'high'"):
        declare(vague, source="tests")


def sees_momentun(momentun: float) -> int:
    return 0


def blind(level: float = 1.0) -> int:
    return 0


def vague(z_score: float, level: str = "high") -> int:
    return 0


def test_a_desks_own_rule_stands_beside_the_platforms_under_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_store.proposals.rules.RULES", RULES.copy())
    assert rule(source="tests")(by_two) is by_two
    assert proposer("by_two", {"level": 3.0}).sides(ROWS, SCHEMA).any()
    with pytest.raises(ValueError, match="a rule is named 'by_two' already"):
        rule(source="tests")(by_two)


# --- identity ---------------------------------------------------------------------------------------------------------


def test_the_identity_is_what_decides_the_sides() -> None:
    assert proposer("stretch").identity() == proposer("stretch", {"threshold": 2.5}).identity()
    assert proposer("stretch").identity() != proposer("stretch", {"threshold": 2}).identity()
    one, later = (Proposer(declare(by_two, source="tests", version=version), {}) for version in (1, 2))
    assert one.identity() != later.identity()
    assert one.identity() == {
        "rule": "by_two",
        "version": 1,
        "features": ["z_score", "rsi"],
        "parameters": {"level": 1.0, "least": -9.0},
        "code_sha256": one.rule.code_digest,
    }


LEVEL = 1.0


def variants() -> dict[str, Rule]:
    """Rules of one name whose texts differ."""

    def with_words(z_score: float) -> int:
        """Say something."""
        # and more
        return helper(z_score)

    def plain(z_score: float) -> int:
        return helper(z_score)

    def other(z_score: float) -> int:
        return -helper(z_score)

    def by_level(z_score: float) -> int:
        return 1 if z_score > LEVEL else 0

    functions = {f.__name__: f for f in (with_words, plain, other, by_level)}
    for function in functions.values():
        function.__name__ = "one"
    return {name: declare(function, source="tests") for name, function in functions.items()}


def helper(z_score: float) -> int:
    return 1 if z_score > 1.0 else 0


def helped_otherwise(z_score: float) -> int:
    return 1 if z_score > 2.0 else 0


def test_the_codes_digest_is_of_what_a_rule_computes_with_all_it_refers_to(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {name: one.code_digest for name, one in variants().items()}
    assert len(set(digests.values())) == 4 - 1  # only words and their own names differ in the first two
    assert digests["with_words"] == digests["plain"]
    monkeypatch.setattr(f"{__name__}.helper", helped_otherwise)
    monkeypatch.setattr(f"{__name__}.LEVEL", 2.0)
    changed = {name: one.code_digest for name, one in variants().items()}
    assert all(changed[name] != digests[name] for name in digests)
