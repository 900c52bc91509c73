import pytest

from models_registry.hyperparameters import WrongHyperparameter, refuse_wrong


@pytest.mark.parametrize(
    ("estimator", "hyperparameters", "said"),
    [
        ("hist_gradient_boosting", {"max_iters": 5}, "has no hyperparameter 'max_iters'; did you mean max_iter"),
        ("hist_gradient_boosting", {"learning_rate": -1}, "'learning_rate' .* must be a float in the range"),
        ("hist_gradient_boosting", {"max_iter": 10.5}, "'max_iter' .* must be an int"),
        ("random_forest", {"n_estimator": 5}, "has no hyperparameter 'n_estimator'; did you mean n_estimators"),
        ("random_forest", {"max_depth": 0}, "'max_depth' .* must be an int in the range"),
        ("random_forest", {"n_jobs": 2}, "n_jobs cannot be set: a fit runs on one thread"),
        ("logistic_regression", {"C": 0}, "'C' .* must be a float in the range"),
        ("logistic_regression", {"random_state": 1}, "random_state cannot be set: set seed instead"),
    ],
)
def test_what_the_estimator_does_not_take_is_refused_in_one_sentence(estimator, hyperparameters, said) -> None:
    with pytest.raises(WrongHyperparameter, match=said):
        refuse_wrong(estimator, hyperparameters)


def test_what_it_takes_passes_a_boolean_too() -> None:
    refuse_wrong("logistic_regression", {"C": 0.5, "fit_intercept": False})
    refuse_wrong("random_forest", {"max_features": 0.5, "bootstrap": False})
    refuse_wrong("hist_gradient_boosting", {})
