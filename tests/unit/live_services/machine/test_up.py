"""`up` starts services when preflight lets them start, and no sooner."""

from live_services.machine.stack import Stack
from live_services.machine.supervision import SERVICES, ProcessState
from live_services.machine.up import start_idle_services
from live_services.settings import load_settings


class Supervised:
    """The processes of a stack of which nothing runs yet."""

    def __init__(self):
        self.started = []

    def processes(self):
        return [ProcessState("market_feed", SERVICES, "STOPPED", 0, "", 0)]

    def start_group(self, group):
        self.started.append(group)


def test_services_that_preflight_holds_back_are_started_when_it_does_no_more(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)
    monkeypatch.setenv("ENVIRONMENT", "production")
    stack, said = Stack(load_settings()), []
    stack.supervisor = Supervised()
    start_idle_services(stack, said.append)
    assert not stack.supervisor.started
    assert "has no sessions yet" in "".join(stack.held_back)
    assert said[-1].startswith("preflight holds the live services back (policy of production; ")
    told = len(said)
    start_idle_services(stack, said.append)  # as `up` does again and again
    assert len(said) == told
    monkeypatch.setenv("ENVIRONMENT", "development")
    start_idle_services(stack, said.append)
    assert (stack.supervisor.started, stack.held_back) == ([SERVICES], ())
