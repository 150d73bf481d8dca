"""A second account of what a stack does: kept from what can be seen of it alone, by rules written down a second time.

It reads a history (calls of the runner, what was told, what was asked for) from first to last. What may not happen is
found when it does; what must have happened by then, whenever time moves on. A broken promise is raised by name.

Its words are its own, for where a container is: the machine's phases are not looked at.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from fake import Call, Script
from stage import Asked, Play, Told

from supervisor.core.checks import Health, Notify, OnUnhealthy
from supervisor.core.policy import Condition, Dependency, RestartPolicy
from supervisor.entry import Entry

SIGKILL = 9
STUCK_S = 10.0
SLACK_S = 1e-6


class BrokenPromiseError(AssertionError):
    """What should hold does not."""

    def __init__(self, promise: str, container: str | None, at_s: float, why: str = "") -> None:
        self.promise = promise
        super().__init__(f"{promise.replace('_', ' ')}: {container or 'the stack'} at {at_s:g} s. {why}")


class Where(Enum):
    """How far a container has come."""

    WAITING = auto()
    QUEUED = auto()  # it may start, when its turn comes
    LAUNCHING = auto()
    UP = auto()  # it runs, its ready check has not passed
    SERVING = auto()
    ENDING = auto()
    KILLED = auto()
    STUCK = auto()
    REFUSED = auto()  # its start has failed, and nobody has said yet what follows
    PAUSED = auto()  # until it starts again
    DONE = auto()
    DOWN = auto()
    FAILED = auto()


RUNS = frozenset({Where.UP, Where.SERVING})
FINAL = frozenset({Where.DONE, Where.DOWN, Where.FAILED, Where.STUCK})
WHAT_FOLLOWS = frozenset({"restarting", "gave_up", "stopped"})  # an end, told in the same breath
ENDED_BY_ITSELF, JUDGED, RETRIED, GIVEN_UP, AGAIN, ASKED = (
    "by itself",
    "judged",
    "retried",
    "given up",
    "again",
    "asked",
)


@dataclass
class Account:
    """What is known of one container."""

    entry: Entry
    extended_s: float  # how much more time it may ask for, at most
    where: Where = Where.WAITING
    since_s: float = 0.0  # when it began to wait
    down_s: float = math.inf  # when it was asked to stop, by the rules of order
    retries: int = 0
    restarts_s: list[float] = field(default_factory=list)
    reason: str = ""  # of its failure, as it is told at the end
    chain: str | None = None
    skipped: set[str] = field(default_factory=set)
    was_up: bool = False
    # of the run
    started_s: float = 0.0
    ready_s: float = 0.0
    ending_s: float = 0.0
    killed_s: float = 0.0
    reaped_s: float = math.inf
    cause: str = ENDED_BY_ITSELF
    fault: str = ""  # how its failure will begin
    must_restart: bool = False
    paused_s: float | None = None  # since when it is frozen
    wish: str | None = None  # paused, or unpaused: asked for, and not told yet
    over: tuple[bool, int, int | None] | None = None  # succeeded, exit status, signal: until it is clear what follows
    signals: list[int] = field(default_factory=list)
    commanded: bool | None = None  # the stop command: is it done? None: it was not run
    well: bool | None = None  # None: not known yet
    failing: int = 0
    owes: str | None = None
    check_s: float = math.inf  # when it is to be looked at
    alive_s: float = math.inf
    early_s: float = math.inf

    @property
    def id(self) -> str:
        return self.entry.id

    @property
    def is_reaped(self) -> bool:
        return self.reaped_s < math.inf

    def begin(self, now_s: float) -> None:
        """A run."""
        self.started_s, self.cause, self.fault, self.over = now_s, ENDED_BY_ITSELF, "", None
        self.signals, self.commanded, self.paused_s, self.wish = [], None, None, None
        self.well, self.failing, self.owes, self.check_s, self.alive_s = None, 0, None, math.inf, math.inf
        self.where = Where.UP
        if self.entry.policy.ready is None:
            self.serve(now_s)

    def serve(self, now_s: float) -> None:
        self.where, self.ready_s, self.owes = Where.SERVING, now_s, None
        health = self.entry.policy.health
        self.was_up = self.was_up or (health is None and self.down_s > now_s and not self.must_restart)
        if health is not None and isinstance(health.probe, Notify):
            self.alive_s = now_s
        elif health is not None:
            self.check_s = now_s + health.start_interval_s

    def go_on(self, now_s: float) -> None:
        """No time has passed for it since it was frozen; whoever looks at it begins anew."""
        self.wish = None
        if self.paused_s is None:
            return
        stood_s, self.paused_s = now_s - self.paused_s, None
        self.started_s, self.ready_s = self.started_s + stood_s, self.ready_s + stood_s
        health = self.entry.policy.health
        if self.where is Where.SERVING and health is not None and isinstance(health.probe, Notify):
            self.alive_s = now_s
        elif self.where is Where.SERVING and health is not None:
            self.check_s = now_s + (health.start_interval_s if self.well is None else health.interval_s)

    def meets(self, condition: Condition) -> bool:
        match condition:
            case Condition.STARTED:
                return self.where in {*RUNS, Where.DONE}
            case Condition.READY:
                return self.where is Where.SERVING
            case Condition.HEALTHY:
                return self.where is Where.SERVING and self.well is True
            case Condition.COMPLETED:
                return self.where is Where.DONE

    def hopeless(self, condition: Condition) -> str | None:
        """Why it will never meet the condition."""
        if self.where is Where.STUCK:
            return f"{self.id} does not end, though it was killed"
        if self.where is Where.FAILED:
            return f"{self.id} failed" if self.chain is None else f"{self.id} was not started, as {self.chain}"
        if self.where is Where.DONE and condition in {Condition.READY, Condition.HEALTHY}:
            return f"{self.id} has ended, and so will not be ready or healthy"
        return None


@dataclass(frozen=True)
class Verdict:
    """May a container start? `fatal`: why it never may; `skipped`: what it does without; `unmet`: it has to wait."""

    fatal: frozenset[str]
    skipped: tuple[frozenset[str], ...]  # of each, what may be said of it
    unmet: bool


class Ledger:
    """The accounts of a stack."""

    def __init__(
        self, entries: Iterable[Entry], scripts: Mapping[str, Sequence[Script]], starts_max: int, *, abort: bool
    ) -> None:
        self.accounts = {each.id: Account(each, _extended_s(scripts, each)) for each in entries}
        self.groups: dict[str, list[Account]] = {}
        for account in self.accounts.values():
            self.groups.setdefault(account.entry.group, []).append(account)
        self.dependents: dict[str, list[Account]] = {}
        for account in self.accounts.values():
            for name in account.entry.depends_on:
                self.dependents.setdefault(name, []).append(account)
        self.starts_max = starts_max
        self.abort = abort
        self.launching = 0
        self.now_s = 0.0
        self.stop_s = self.kill_s = math.inf
        self.up_told = False

    def read(self, seen: Play) -> None:
        """Everything, to the end."""
        for item in seen.history:
            assert isinstance(item, Call | Told | Asked)
            if item.at_s > self.now_s:
                self._settle(item.at_s - 2 * SLACK_S)
                self.now_s = item.at_s
            if not (isinstance(item, Told) and item.event in WHAT_FOLLOWS):
                self._settle_ends()
            self._take(item)
            self._see_who_is_to_stop()
        self._settle(self.now_s)
        for account in self.accounts.values():
            self._hold("everything_ends", account, account.where in FINAL)
        failed = {each.id: each.reason for each in self.accounts.values() if each.where in {Where.FAILED, Where.STUCK}}
        if seen.failed != failed:
            raise BrokenPromiseError("the_summary_is_true", None, self.now_s, f"{seen.failed} is not {failed}")

    # --- what happens -------------------------------------------------------------------------------------------------

    def _take(self, item: Call | Told | Asked) -> None:
        if isinstance(item, Asked) and item.container is not None:
            self._asked_of(self.accounts[item.container], item.what)
        elif isinstance(item, Asked):
            self.stop_s = min(self.stop_s, item.at_s)
            if item.what == "kill":
                self.kill_s = min(self.kill_s, item.at_s)
        elif isinstance(item, Call):
            handle: Callable[..., None] | None = getattr(self, f"_call_{item.what}", None)
            if handle is not None:
                handle(self.accounts[item.container], item.number)
        elif item.container is None:
            self._up_or_not()
        else:
            getattr(self, f"_told_{item.event}")(self.accounts[item.container], item.fields)

    def _asked_of(self, account: Account, what: str) -> None:
        if account.where in RUNS and (account.paused_s is None) is (what == "pause"):
            account.wish = what

    def _see_who_is_to_stop(self) -> None:
        if self.stop_s > self.now_s:
            return
        for account in self.accounts.values():
            if account.down_s == math.inf and (self.kill_s <= self.now_s or not self._is_needed(account)):
                account.down_s = self.now_s

    def _is_needed(self, account: Account) -> bool:
        return any(
            each.where not in FINAL or each.over is not None for each in self.dependents.get(account.entry.group, ())
        )

    def _call_start(self, account: Account, _number: int) -> None:
        self._hold("nothing_starts_untold", account, account.where is Where.QUEUED)
        verdict = self._verdict(account, self.now_s + SLACK_S)
        self._hold("conditions_hold_at_every_start", account, not verdict.fatal and not verdict.unmet, str(verdict))
        self._hold("nothing_starts_after_a_stop", account, account.down_s >= self.now_s)
        self._hold("what_is_skipped_is_told", account, all(each & account.skipped for each in verdict.skipped))
        account.where, account.must_restart, account.reaped_s = Where.LAUNCHING, False, math.inf
        self.launching += 1
        self._hold("the_limiter_is_respected", account, self.launching <= self.starts_max)

    def _call_started(self, _account: Account, _number: int) -> None:
        self.launching -= 1

    def _call_refused(self, account: Account, _number: int) -> None:
        self.launching -= 1
        account.where, account.must_restart = Where.REFUSED, False
        account.cause, account.fault = ENDED_BY_ITSELF, ""
        account.reaped_s = account.started_s = self.now_s
        account.over = (False, 125, None)

    def _call_ended(self, account: Account, _number: int) -> None:
        account.reaped_s = self.now_s

    def _call_signal(self, account: Account, number: int) -> None:
        stop_cmd = bool(account.entry.policy.stop_cmd)
        if number == SIGKILL:
            self._hold("sigkill_comes_once_and_told", account, account.where is Where.KILLED)
        else:
            self._hold("the_stop_signal_is_told", account, account.where is Where.ENDING)
            self._hold("the_stop_command_comes_first", account, not stop_cmd or account.commanded is True)
        self._hold("no_signal_comes_twice", account, number not in account.signals)
        account.signals.append(number)

    def _call_command(self, account: Account, _number: int) -> None:
        asked = account.where is Where.ENDING or account.killed_s == self.now_s  # called off before it began
        self._hold("the_stop_command_runs_once", account, asked and account.commanded is None)
        account.commanded = False

    def _call_commanded(self, account: Account, _number: int) -> None:
        account.commanded = True

    def _call_check(self, account: Account, _number: int) -> None:
        self._hold("only_what_runs_is_checked", account, account.where in RUNS or self._has_just_ended(account))
        self._hold("what_is_paused_is_not_checked", account, account.paused_s in {None, self.now_s})
        if account.where is Where.SERVING:
            self._hold("checks_keep_their_distance", account, self.now_s >= account.check_s - SLACK_S)
        account.check_s = math.inf

    def _call_checked(self, account: Account, passed: int) -> None:
        self._hold("checks_end_with_what_they_are_for", account, account.where in RUNS or self._has_just_ended(account))
        if account.where is Where.UP and passed:
            account.owes = "ready"
        if account.where is not Where.SERVING:
            return
        health = _health(account)
        fresh = account.well is None
        account.check_s = self.now_s + (health.start_interval_s if fresh and not passed else health.interval_s)
        if passed:
            self._is_well(account)
        elif not (fresh and self.now_s - account.ready_s < health.start_period_s):
            account.failing += 1
            if account.failing >= health.retries and account.well is not False:
                account.owes = "unhealthy"

    def _has_just_ended(self, account: Account) -> bool:
        """At this very moment: what was called off may not know it yet."""
        return self.now_s in {account.ending_s, account.killed_s, account.reaped_s}

    def _call_alive(self, account: Account, well: int) -> None:
        if account.where is not Where.SERVING or account.alive_s == math.inf:
            account.early_s = self.now_s
            return
        if well:
            account.alive_s = self.now_s
            self._is_well(account)
        elif account.well is not False:
            account.owes = "unhealthy"

    def _is_well(self, account: Account) -> None:
        account.failing = 0
        if account.well is not True:
            account.owes = "healthy"

    # --- what is told -------------------------------------------------------------------------------------------------

    def _told_starting(self, account: Account, _fields: Mapping[str, Any]) -> None:
        waited = account.where in {Where.WAITING, Where.QUEUED}
        paused = account.where is Where.PAUSED and self.now_s >= account.since_s - SLACK_S
        self._hold("a_start_follows_a_wait", account, waited or paused, account.where.name)
        account.where = Where.QUEUED

    def _told_dependency_skipped(self, account: Account, fields: Mapping[str, Any]) -> None:
        verdict = self._verdict(account, self.now_s + SLACK_S)
        true = any(fields["reason"] in each for each in (*verdict.skipped, self._long_over(account)))
        self._hold("only_what_is_optional_is_skipped", account, true, str(fields))
        account.skipped.add(fields["reason"])

    def _told_dependency_failed(self, account: Account, fields: Mapping[str, Any]) -> None:
        verdict = self._verdict(account, self.now_s + SLACK_S)
        true = fields["chain"] in verdict.fatal | self._too_late(account)
        self._hold("chains_of_causes_are_true", account, true, f"{fields} {verdict}")
        waited = account.where in {Where.WAITING, Where.QUEUED, Where.PAUSED}
        self._hold("only_who_waits_is_failed", account, waited)
        account.where, account.chain = Where.FAILED, fields["chain"]
        account.reason = f"not started: {account.chain}"

    def _told_started(self, account: Account, _fields: Mapping[str, Any]) -> None:
        self._hold("a_run_follows_a_launch", account, account.where is Where.LAUNCHING)
        account.begin(self.now_s)

    def _told_start_failed(self, account: Account, _fields: Mapping[str, Any]) -> None:
        self._hold("a_start_error_follows_a_launch", account, account.where is Where.REFUSED)

    def _told_ready(self, account: Account, _fields: Mapping[str, Any]) -> None:
        self._hold("ready_follows_a_start", account, account.where is Where.UP)
        account.serve(self.now_s)

    def _told_healthy(self, account: Account, _fields: Mapping[str, Any]) -> None:
        early = (
            account.ready_s == account.early_s == self.now_s
        )  # it said that it is well before we saw that it is ready
        self._hold("healthy_is_true", account, account.owes == "healthy" or early)
        account.owes, account.well, account.was_up = None, True, True

    def _told_unhealthy(self, account: Account, _fields: Mapping[str, Any]) -> None:
        health = _health(account)
        early = account.ready_s == account.early_s == self.now_s
        silent = early or (
            health.watchdog_s is not None and self.now_s >= account.alive_s + health.watchdog_s - SLACK_S
        )
        self._hold("unhealthy_is_true", account, account.owes == "unhealthy" or silent)
        account.owes, account.well = None, False
        if health.on_unhealthy is not OnUnhealthy.IGNORE:
            account.cause = RETRIED if health.on_unhealthy is OnUnhealthy.RESTART else GIVEN_UP
            account.owes, account.fault = "stopping", "unhealthy: "

    def _told_not_ready(self, account: Account, _fields: Mapping[str, Any]) -> None:
        ready = account.entry.policy.ready
        assert ready is not None
        late = self.now_s >= account.started_s + ready.timeout_s - SLACK_S
        late = late and account.paused_s is None
        self._hold("time_is_given_to_become_ready", account, account.where is Where.UP and late)
        account.cause, account.owes, account.fault = JUDGED, "stopping", "not ready within "

    def _told_timed_out(self, account: Account, _fields: Mapping[str, Any]) -> None:
        timeout_s = account.entry.policy.timeout_s
        late = timeout_s is not None and self.now_s >= account.started_s + timeout_s - SLACK_S
        self._hold("time_is_given_to_run", account, account.where in RUNS and late and account.paused_s is None)
        account.cause, account.owes, account.fault = JUDGED, "stopping", "not done within "

    def _told_status(self, account: Account, _fields: Mapping[str, Any]) -> None:
        pass

    def _told_paused(self, account: Account, _fields: Mapping[str, Any]) -> None:
        self._hold("only_what_runs_is_paused", account, account.where in RUNS and account.paused_s is None)
        account.paused_s, account.wish = self.now_s, None

    def _told_unpaused(self, account: Account, _fields: Mapping[str, Any]) -> None:
        self._hold("only_what_is_paused_goes_on", account, account.where in RUNS and account.paused_s is not None)
        account.go_on(self.now_s)

    def _call_frozen(self, account: Account, _number: int) -> None:
        self._hold("only_what_is_paused_is_frozen", account, account.paused_s == self.now_s)

    def _call_thawed(self, account: Account, _number: int) -> None:
        self._hold("what_is_paused_stays_so", account, account.paused_s is None)

    def _told_stop_command_failed(self, account: Account, _fields: Mapping[str, Any]) -> None:
        self._hold("the_stop_command_fails_after_it_ran", account, account.commanded is True)

    def _told_aborting(self, account: Account, _fields: Mapping[str, Any]) -> None:
        self._hold("it_aborts_when_it_is_to", account, self.abort and self._aborts(account))
        self.stop_s = min(self.stop_s, self.now_s)

    def _told_stopping(self, account: Account, _fields: Mapping[str, Any]) -> None:
        self._hold("only_what_runs_is_stopped", account, account.where in RUNS)
        account.go_on(self.now_s)
        if account.cause is ENDED_BY_ITSELF:
            account.cause = AGAIN if account.must_restart else ASKED
            asked = account.must_restart or account.down_s <= self.now_s
            self._hold("nothing_stops_unasked_and_dependents_stop_first", account, asked)
        account.where, account.ending_s, account.owes, account.must_restart = Where.ENDING, self.now_s, None, False

    def _told_killing(self, account: Account, fields: Mapping[str, Any]) -> None:
        if "grace_s" in fields:
            patient = self.now_s >= account.ending_s + account.entry.policy.stop_grace_s - SLACK_S
            self._hold("the_grace_period_is_given", account, account.where is Where.ENDING and patient)
        else:
            self._hold("nothing_is_killed_unasked", account, self.kill_s <= self.now_s)
        account.go_on(self.now_s)
        account.where, account.killed_s, account.owes = Where.KILLED, self.now_s, None

    def _told_stuck(self, account: Account, _fields: Mapping[str, Any]) -> None:
        late = self.now_s >= account.killed_s + STUCK_S - SLACK_S
        self._hold("stuck_is_told_after_a_while", account, account.where is Where.KILLED and late)
        account.where, account.reason = Where.STUCK, "killed, but the kernel does not let go of it"

    def _told_exited(self, account: Account, fields: Mapping[str, Any]) -> None:
        ran = {*RUNS, Where.ENDING, Where.KILLED, Where.STUCK}
        self._hold("an_end_follows_a_run", account, account.where in ran and account.is_reaped)
        ran_s = (self.now_s if account.paused_s is None else account.paused_s) - account.started_s
        self._hold("the_length_of_a_run_is_true", account, abs(fields["ran_s"] - ran_s) <= 0.001)
        if ran_s >= account.entry.policy.backoff.reset_after_s:
            account.retries = 0
        signal = fields.get("signal")
        succeeded = signal is None and fields["exit_status"] in account.entry.policy.success_codes
        account.over = (succeeded, fields["exit_status"], signal)
        account.where, account.owes, account.must_restart = Where.DONE, None, False
        account.check_s = account.alive_s = math.inf

    def _told_restarting(self, account: Account, fields: Mapping[str, Any]) -> None:
        self._follows(account, "restarting")
        policy, ran = account.entry.policy, account.where is Where.DONE
        delay_s = 0.0
        if account.cause is not AGAIN:
            account.retries += 1
            backoff = policy.backoff
            delay_s = min(backoff.max_s, backoff.initial_s * backoff.factor ** (account.retries - 1))
            told = (fields["retry"], fields["delay_s"])
            self._hold("waits_grow", account, told == (account.retries, delay_s), f"{told} {account.retries} {delay_s}")
            account.restarts_s.append(self.now_s)
        account.where, account.since_s = (Where.PAUSED if delay_s else Where.WAITING), self.now_s + delay_s
        account.over, account.skipped = None, set()
        if ran:
            self._see_who_is_to_restart(account)

    def _see_who_is_to_restart(self, account: Account) -> None:
        for dependent in self.dependents.get(account.entry.group, ()):
            if dependent.entry.depends_on[account.entry.group].restart and not dependent.is_reaped:
                dependent.must_restart = dependent.where in {*RUNS, Where.LAUNCHING}

    def _told_gave_up(self, account: Account, fields: Mapping[str, Any]) -> None:
        self._follows(account, "gave_up")
        true = fields["reason"].startswith(account.fault) and fields.get("retries", 0) == account.retries
        self._hold("the_reason_of_a_failure_is_true", account, true, str(fields))
        account.where, account.reason, account.over = Where.FAILED, fields["reason"], None

    def _told_stopped(self, account: Account, _fields: Mapping[str, Any]) -> None:
        self._hold("nothing_stops_unasked", account, account.down_s <= self.now_s)
        quiet = {Where.WAITING, Where.QUEUED, Where.PAUSED, Where.REFUSED, Where.DONE}
        self._hold("stopped_is_true", account, account.where in quiet)
        account.where, account.over = Where.DOWN, None

    def _up_or_not(self) -> None:
        up = all(each.was_up or each.where is Where.DONE for each in self.accounts.values())
        self._hold("the_stack_is_up_when_it_says_so", None, up and not self.up_told)
        self.up_told = True

    # --- what follows an end ------------------------------------------------------------------------------------------

    def _follows(self, account: Account, told: str | None) -> None:
        """What the policy says, written down a second time."""
        self._hold("an_end_is_judged_once", account, account.over is not None)
        if account.down_s < account.reaped_s - SLACK_S:
            self._hold("what_is_to_stop_stays_down", account, told == "stopped", str(told))
        elif account.down_s > self.now_s or account.down_s == math.inf:
            expected = what_follows(account, self.now_s)
            self._hold("the_policy_is_followed", account, told == expected, f"{told}, not {expected}")

    # --- what must have happened --------------------------------------------------------------------------------------

    def _settle(self, horizon_s: float) -> None:
        """Time moves on: all that is due has been done."""
        self._settle_ends()
        for account in self.accounts.values():
            self._hold("a_failed_start_is_judged", account, account.where is not Where.REFUSED)
            if account.where is Where.PAUSED and account.since_s < horizon_s:
                account.where = Where.WAITING
            if account.where in {Where.WAITING, Where.QUEUED}:
                self._settle_wait(account, horizon_s)
            elif not account.is_reaped:
                self._settle_run(account, horizon_s)
            if account.down_s < math.inf:
                self._settle_stop(account)
        aborts = self.abort and any(map(self._aborts, self.accounts.values()))
        self._hold("it_aborts", None, not aborts or self.stop_s < math.inf)
        up = self.accounts and all(each.was_up for each in self.accounts.values())
        self._hold("the_stack_says_when_it_is_up", None, not up or self.up_told)

    def _aborts(self, account: Account) -> bool:
        """Has it come to an end that nobody waits for?"""
        group = account.entry.group
        needs = [each.entry.depends_on[group].condition for each in self.dependents.get(group, ())]
        return account.where in FINAL and not (account.where is Where.DONE and Condition.COMPLETED in needs)

    def _settle_ends(self) -> None:
        """Nothing was told to follow these: they are done."""
        ended = [each for each in self.accounts.values() if each.where is Where.DONE and each.over is not None]
        for account in ended:
            self._follows(account, None)
            account.over, account.was_up = None, True
        if ended:
            self._see_who_is_to_stop()

    def _settle_wait(self, account: Account, horizon_s: float) -> None:
        free = self.launching < self.starts_max
        verdict = self._verdict(account, horizon_s)
        if account.where is Where.QUEUED and not free:
            return
        if verdict.unmet and verdict.fatal <= self._long_over(account):
            return
        self._hold("who_can_never_start_fails_at_once", account, not verdict.fatal, str(verdict))
        self._hold("who_may_start_does", account, verdict.unmet, account.where.name)

    def _settle_run(self, account: Account, horizon_s: float) -> None:
        policy, more_s = account.entry.policy, account.extended_s
        if account.where in RUNS:
            self._hold("what_is_due_is_told", account, account.owes is None, f"owes {account.owes}")
            self._hold("dependents_restart_too", account, not account.must_restart)
            self._hold("a_pause_is_at_once", account, account.wish is None, f"{account.wish}")
            if account.paused_s is not None:
                return
            if policy.timeout_s is not None:
                limit_s = account.started_s + policy.timeout_s + more_s
                self._hold("no_run_is_longer_than_allowed", account, horizon_s <= limit_s)
        if account.where is Where.UP and policy.ready is not None:
            limit_s = account.started_s + policy.ready.timeout_s + more_s
            self._hold("who_is_not_ready_in_time_has_failed", account, horizon_s <= limit_s)
        if account.where is Where.SERVING:
            self._hold("health_is_looked_at", account, horizon_s <= account.check_s)
            silence = account.alive_s < math.inf and account.well is not False
            limit_s = account.alive_s + (_health(account).watchdog_s or 0) if silence else math.inf
            self._hold("silence_is_heard", account, horizon_s <= limit_s)
        if account.where is Where.ENDING:
            asked = account.signals or account.commanded is not None
            self._hold("who_is_stopped_is_told_so", account, bool(asked))
            self._hold("a_stop_command_is_followed", account, bool(account.signals) or account.commanded is False)
            self._hold("a_grace_period_ends", account, horizon_s <= account.ending_s + policy.stop_grace_s + more_s)
        if account.where is Where.KILLED:
            self._hold("who_is_killed_is_sent_sigkill", account, SIGKILL in account.signals)
            self._hold("nobody_waits_for_the_stuck", account, horizon_s <= account.killed_s + STUCK_S)

    def _settle_stop(self, account: Account) -> None:
        slow = {Where.LAUNCHING, Where.KILLED, *FINAL} | ({Where.ENDING} if self.kill_s == math.inf else set())
        self._hold("a_stop_is_at_once", account, account.where in slow or account.is_reaped, account.where.name)

    def _verdict(self, account: Account, at_s: float) -> Verdict:
        fatal, skipped, unmet = set[str](), list[frozenset[str]](), False
        for name, need in account.entry.depends_on.items():
            members = self.groups.get(name, [])
            if all(each.meets(need.condition) for each in members):
                continue
            reasons = {why for each in members if (why := each.hopeless(need.condition)) is not None}
            if not reasons and need.timeout_s is not None and at_s >= account.since_s + need.timeout_s:
                reasons = {_late(name, need)}
            if not reasons:
                unmet = True
            elif need.required:
                fatal |= reasons
            else:
                skipped.append(frozenset(reasons))
        return Verdict(frozenset(fatal), tuple(skipped), unmet)

    def _too_late(self, account: Account) -> set[str]:
        """Waits that end at this moment: who is met at the same time may come too late."""
        return {why for why, over_s in self._limits(account) if abs(over_s - self.now_s) <= SLACK_S}

    def _long_over(self, account: Account) -> set[str]:
        """Waits whose end is past, and may have been fine then: they count when the others are over."""
        return {why for why, over_s in self._limits(account) if over_s <= self.now_s + SLACK_S}

    def _limits(self, account: Account) -> Iterator[tuple[str, float]]:
        for name, need in account.entry.depends_on.items():
            if need.timeout_s is not None:
                yield _late(name, need), account.since_s + need.timeout_s

    def _hold(self, promise: str, account: Account | None, holds: bool, why: str = "") -> None:
        if not holds:
            raise BrokenPromiseError(promise, None if account is None else account.id, self.now_s, why)


def what_follows(account: Account, now_s: float) -> str | None:
    """After the end of a run, or a start that failed, if nobody asked for it: what is to be told."""
    policy = account.entry.policy
    assert account.over is not None
    succeeded, code, signal = account.over
    if account.cause is AGAIN:
        return "restarting"
    if account.cause is GIVEN_UP:
        return "gave_up"
    failed = not succeeded or account.cause is JUDGED
    within = policy.max_restarts is None or policy.max_restarts > sum(
        at_s > now_s - policy.window_s for at_s in account.restarts_s
    )
    if account.cause is RETRIED:
        return "restarting" if within else "gave_up"
    match policy.restart:
        case RestartPolicy.NO:
            again = False
        case RestartPolicy.ON_FAILURE:
            again = failed and (policy.max_retries is None or account.retries < policy.max_retries)
        case _:
            again = True
    only = policy.restart_on
    if only is not None and account.where is not Where.REFUSED:
        again = again and (code in only.exit_codes if signal is None else signal in only.signals)
    if again:
        return "restarting" if within else "gave_up"
    return "gave_up" if failed else None


def _health(account: Account) -> Health:
    assert account.entry.policy.health is not None
    return account.entry.policy.health


def _late(name: str, need: Dependency) -> str:
    return f"{name} was not {need.condition} within {need.timeout_s:g} s"


def _extended_s(scripts: Mapping[str, Sequence[Script]], entry: Entry) -> float:
    return sum(_asked_for(scripts.get(entry.group, ())))


def _asked_for(scripts: Sequence[Script]) -> Iterator[float]:
    for script in scripts:
        yield from (notice.extend_s for _, notice in script.says if notice.extend_s is not None)
