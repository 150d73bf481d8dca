"""Reloads of a stack that runs, on a virtual clock: what is changed and in which order, and what never is."""

from dataclasses import replace

import anyio
import pytest
from fake import CRASH, Script
from stage import entries, one
from theatre import FINE, ROLLBACK, START_FIRST, STOP_SLOWLY, Theatre, play

from supervisor.core.policy import Condition, Dependency, RestartPolicy
from supervisor.core.states import Start, Stop
from supervisor.entry import Entry, Update
from supervisor.errors import ConflictError, SpecError
from supervisor.logs.policy import UNLIMITED, LogLimit
from supervisor.reload.amendment import Amendment, amend

# --- one reload -------------------------------------------------------------------------------------------------------


def test_new_ones_start_removed_ones_stop_and_the_rest_goes_on() -> None:
    async def act(theatre: Theatre) -> None:
        answer = await theatre.reload([one("db"), one("new", "db")])
        assert theatre.phases() == {"db": "running", "new": "running"}
        assert theatre.happened("start") == ["db", "old", "new"]
        assert answer.text == "+ new: new\n- old: removed\n1 new, 1 removed, 1 unchanged\n"
        assert answer.failure is None
        assert theatre.house.said == [("strike", "old"), ("enrol", "new")]
        assert theatre.events()[-1] == "reloaded"

    play([one("db"), one("old", "db")], act)


def test_dependents_are_removed_before_what_they_need() -> None:
    async def act(theatre: Theatre) -> None:
        await theatre.reload([one("new")])
        assert theatre.happened("buried") == ["web", "db"]

    play([one("db"), one("web", "db"), one("new")], act, {"web": STOP_SLOWLY})


def test_what_has_changed_is_stopped_and_then_started_dependencies_first() -> None:
    async def act(theatre: Theatre) -> None:
        await theatre.reload([one("db", argv="y"), one("web", "db", argv="y")])
        names = [(call.what, call.container) for call in theatre.runner.calls if call.what in {"start", "buried"}]
        assert names[2:] == [("buried", "db"), ("start", "db"), ("buried", "web"), ("start", "web")]
        assert theatre.phases() == {"db": "running", "web": "running"}
        assert [each.entry.config.argv for each in theatre.stack.services] == [("y",), ("y",)]

    play([one("db"), one("web", "db")], act, {"db": STOP_SLOWLY})


def test_the_old_run_is_stopped_as_it_was_configured() -> None:
    async def act(theatre: Theatre) -> None:
        await theatre.reload([one("web", argv="y", stop_signal=10)])
        assert [call.number for call in theatre.runner.calls if call.what == "signal"] == [2]

    play([one("web", stop_signal=2)], act)


@pytest.mark.parametrize(("parallel", "most"), [(1, 1), (2, 2), (0, 5)])
def test_so_many_replicas_are_replaced_at_a_time(parallel: int, most: int) -> None:
    def five(argv: str) -> list[Entry]:
        update = Update(parallel=parallel)
        return [
            replace(each, config=replace(each.config, argv=(argv,)), update=update)
            for each in entries("web", replicas=5)
        ]

    async def act(theatre: Theatre) -> None:
        down, worst = 0, 0
        before = len(theatre.runner.calls)
        await theatre.reload(five("y"))
        for call in theatre.runner.calls[before:]:
            down += {"ended": 1, "started": -1}.get(call.what, 0)
            worst = max(worst, down)
        assert worst == most

    play(five("x"), act, {"web": Script(start_s=0.5)})


def test_policy_and_dependencies_are_swapped_while_it_runs() -> None:
    async def act(theatre: Theatre) -> None:
        answer = await theatre.reload([one("db"), one("web", "db", restart="always", timeout_s=100.0)])
        assert sorted(theatre.happened("start")) == ["db", "web"]
        assert "= web: goes on running (" in answer.text
        theatre.runner.live["web"].end()
        await anyio.sleep(5)
        assert theatre.phases()["web"] == "running"

    play([one("db"), one("web")], act)


def test_a_new_dependency_is_waited_for_even_before_it_is_there() -> None:
    """Should `web` crash while the reload removes something else."""

    async def act(theatre: Theatre) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(theatre.reload, [one("web", "db", restart="always"), one("db")])
            await anyio.sleep(2)
            theatre.runner.live["web"].end()
            await anyio.sleep(3)
            assert theatre.phases()["web"] == "waiting"
        assert theatre.phases() == {"web": "running", "db": "running"}

    play([one("web", restart="always"), one("slow")], act, {"slow": Script(stops_s=8.0)})


@pytest.mark.parametrize("update", [Update(), START_FIRST])
def test_who_is_to_restart_along_with_a_replaced_one_is(update: Update) -> None:
    needs = {"db": Dependency(Condition.STARTED, restart=True)}

    async def act(theatre: Theatre) -> None:
        await theatre.reload([one("db", argv="y", update=update), one("web", conditions=needs)])
        await anyio.sleep(1)
        assert theatre.happened("start").count("web") == 2

    play([one("db"), one("web", conditions=needs)], act)


def test_nothing_happens_where_nothing_has_changed() -> None:
    async def act(theatre: Theatre) -> None:
        answer = await theatre.reload()
        assert (answer.changed, answer.text) == (False, "1 unchanged\n")
        assert theatre.happened("start") == ["web"]

    play([one("web")], act)


def test_a_preview_changes_nothing() -> None:
    async def act(theatre: Theatre) -> None:
        theatre.file = [one("web", argv="y")]
        assert (await theatre.reloader.preview()).text == "~ web: replaced (cmd: x -> y)\n1 replaced\n"
        assert theatre.happened("start") == ["web"]
        assert theatre.events()[-1] == "stack_up"

    play([one("web")], act)


def test_a_faulty_spec_changes_nothing_and_each_fault_is_told() -> None:
    async def act(theatre: Theatre) -> None:
        theatre.fault = SpecError(["a.yaml:1:1: bad", "a.yaml:2:1: worse"])
        with pytest.raises(SpecError):
            await theatre.reload([])
        theatre.reloader.hint("SIGHUP")
        await anyio.sleep(1)
        faults = [fields["error"] for event, _, fields in theatre.told if event == "reload_refused"]
        assert faults == ["a.yaml:1:1: bad", "a.yaml:2:1: worse"] * 2
        assert theatre.phases() == {"web": "running"}

    play([one("web")], act)


def test_the_stack_does_not_end_between_its_last_container_and_the_next_one() -> None:
    async def act(theatre: Theatre) -> None:
        await theatre.reload([one("new")])
        await anyio.sleep(1)
        assert theatre.phases() == {"new": "running"}

    play([one("old")], act, stay=False)


def test_a_completed_one_whose_configuration_has_changed_runs_again() -> None:
    async def act(theatre: Theatre) -> None:
        await theatre.reload([one("job", argv="y"), one("web")])
        assert theatre.happened("start").count("job") == 2

    play([one("job"), one("web")], act, {"job": Script(runs_s=1)})


def test_who_leaves_or_is_replaced_does_not_end_a_stack_that_ends_with_the_first() -> None:
    async def act(theatre: Theatre) -> None:
        await theatre.reload([one("db", argv="y", update=START_FIRST), one("web", argv="y"), one("new")])
        await anyio.sleep(1)
        assert set(theatre.phases().values()) == {"running"}
        theatre.runner.live["new"].end()
        await anyio.sleep(1)
        assert set(theatre.phases().values()) == {"exited"}

    play([one("db"), one("web"), one("old")], act, abort_on_exit=True)


# --- what is stopped, and what is not ours ----------------------------------------------------------------------------


def test_what_the_operator_stopped_stays_stopped() -> None:
    async def act(theatre: Theatre) -> None:
        theatre.stack.service("web").post(Stop())
        await anyio.sleep(1)
        await theatre.reload([one("web", argv="y"), one("lb", "web", argv="y"), one("api", argv="y")])
        assert theatre.phases() == {"web": "exited", "lb": "waiting", "api": "running"}
        theatre.stack.service("web").post(Start())
        await anyio.sleep(1)
        assert theatre.phases() == {"web": "running", "lb": "running", "api": "running"}
        assert theatre.stack.service("web").entry.config.argv == ("y",)

    play([one("web"), one("lb", "web"), one("api")], act)


def test_one_that_takes_the_place_of_a_stopped_one_stays_down_too() -> None:
    """Its name is in its command, so it can't just be renamed."""

    async def act(theatre: Theatre) -> None:
        theatre.stack.service("web").post(Stop())
        await anyio.sleep(1)
        several = [replace(each, config=replace(each.config, argv=(each.id,))) for each in entries("web", replicas=2)]
        await theatre.reload(several)
        assert theatre.phases() == {"web.1": "exited", "web.2": "running"}

    play([one("web")], act)


def test_what_was_made_through_the_api_is_untouched_and_its_name_is_taken() -> None:
    async def act(theatre: Theatre) -> None:
        theatre.house.others.add("guest")
        theatre.stack.add(one("guest"), counts=False).post(Start())
        await theatre.reload([one("new")])
        assert theatre.phases() == {"new": "running", "guest": "running"}
        with pytest.raises(ConflictError, match="guest is the name of a container made through the API"):
            await theatre.reload([one("new"), one("guest")])
        assert theatre.happened("start").count("guest") == 1

    play([one("web")], act)


# --- scale ------------------------------------------------------------------------------------------------------------


def test_scaling_adds_and_removes_and_renames_without_a_restart() -> None:
    async def act(theatre: Theatre) -> None:
        await theatre.reloader.scale({"web": 3}, "a test")
        assert theatre.phases() == {"web.1": "running", "web.2": "running", "web.3": "running", "db": "running"}
        await theatre.reloader.scale({"web": 1}, "a test")
        assert theatre.phases() == {"web": "running", "db": "running"}
        assert sorted(theatre.happened("start")) == ["db", "web", "web.2", "web.3"]
        await theatre.reloader.scale({"web": 0}, "a test")
        assert theatre.phases() == {"db": "running"}

    play([one("web"), one("db")], act)


def test_a_scale_holds_over_reloads_until_the_file_has_another_number() -> None:
    async def act(theatre: Theatre) -> None:
        await theatre.reloader.scale({"web": 3}, "a test")
        await theatre.reload([one("web"), one("db", argv="y")])
        assert len(theatre.phases()) == 4
        await theatre.reload([*entries("web", replicas=2), one("db", argv="y")])
        assert theatre.phases() == {"web.1": "running", "web.2": "running", "db": "running"}

    play([one("web"), one("db")], act)


def test_what_an_operator_has_changed_is_no_difference_until_the_file_has_another_word_on_it() -> None:
    async def act(theatre: Theatre) -> None:
        before, after = one("b"), amend(one("b"), restarts=(RestartPolicy.ALWAYS, None))
        theatre.house.amendments["b"] = Amendment.of(before, after)
        theatre.stack.service("b").adapt(after)
        assert not (await theatre.reload()).changed
        assert not (await theatre.reloader.scale({"a": 1}, "a test")).changed
        other = one("b", restart=RestartPolicy.ON_FAILURE)
        assert (await theatre.reload([one("a"), other])).changed
        assert theatre.stack.service("b").entry.policy.restart is RestartPolicy.ON_FAILURE

    play([one("a"), one("b")], act)


def test_scaling_changes_nothing_else() -> None:
    async def act(theatre: Theatre) -> None:
        theatre.file = [one("web"), one("db", argv="y"), one("new")]
        await theatre.reloader.scale({"web": 2}, "a test")
        assert theatre.phases() == {"web.1": "running", "web.2": "running", "db": "running"}
        assert theatre.stack.service("db").entry.config.argv == ("x",)
        theatre.file = [one("web", argv="y"), one("db")]
        with pytest.raises(ConflictError, match=r"web.1 has changed in the file \(cmd: x -> y\): pysup reload first"):
            await theatre.reloader.scale({"web": 3}, "a test")

    play([one("web"), one("db")], act)


def test_another_limit_of_all_logs_holds_from_then_on() -> None:
    async def act(theatre: Theatre) -> None:
        theatre.logs = LogLimit(1 << 20)
        with pytest.raises(ConflictError, match=r"logs of the stack have changed in the file .*: pysup reload first"):
            await theatre.reloader.scale({"web": 2}, "a test")
        assert theatre.house.limits == []
        told = await theatre.reload()
        assert told.text == "= logs of the stack: max_total: none -> 1048576\n1 unchanged\n"
        assert theatre.house.limits == [1 << 20]
        assert not (await theatre.reload()).changes["logs"]
        theatre.logs = UNLIMITED
        await theatre.reload([one("web", argv="y", update=ROLLBACK)])
        assert theatre.house.limits[-2:] == [None, 1 << 20]
        theatre.logs = LogLimit(1 << 20)
        assert (await theatre.reload([one("web")])).text == "1 unchanged\n"

    play([one("web")], act, {"web": [FINE, CRASH, FINE]})
