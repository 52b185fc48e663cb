"""RestClient and AdminClient: what is listed, what is done with checkpoints, and what is not offered."""

import asyncio
import time
from datetime import UTC, date, datetime, timedelta

import pytest
import tinker
from tinker import types

from data import MODEL, step


@pytest.fixture(scope="module")
def runs(client):
    """Three runs with a checkpoint each, oldest first."""
    runs = [
        client.create_lora_training_client(MODEL, rank=2, user_metadata={"number": str(i)}).result()
        for i in range(3)
    ]
    for run in runs:
        step(run)
        run.save_state("one").result()
    return runs


@pytest.fixture
def path(runs):
    """A checkpoint of its own for each test."""
    name = f"own-{time.monotonic_ns()}"
    return runs[0].save_state(name).result().path


def found(rest, path) -> types.Checkpoint:
    run = path.removeprefix("tinker://").split("/")[0]
    (one,) = [c for c in rest.list_checkpoints(run).result().checkpoints if c.tinker_path == path]
    return one


def test_runs(rest, runs):
    everything = rest.list_training_runs(limit=1000).result()
    ids = [run.training_run_id for run in everything.training_runs]
    assert everything.cursor.total_count == len(ids) == len(set(ids))
    assert {run.model_id for run in runs} <= set(ids)
    pages = [rest.list_training_runs(limit=2, offset=at).result() for at in range(0, len(ids), 2)]
    assert [run.training_run_id for page in pages for run in page.training_runs] == ids
    assert (pages[1].cursor.offset, pages[1].cursor.limit) == (2, 2)
    assert rest.list_training_runs(offset=100_000).result().training_runs == []
    assert rest.list_training_runs(limit=1000, access_scope="accessible").result() == everything


def test_runs_of_a_project(service, rest):
    project = f"project-{time.monotonic_ns()}"
    with tinker.ServiceClient(project_id=project, base_url=service.url) as client:
        run = client.create_lora_training_client(MODEL, rank=2).result()
        found = rest.list_training_runs(project_id=project).result()
    assert [one.training_run_id for one in found.training_runs] == [run.model_id]
    assert found.cursor.total_count == 1


def test_run(rest, runs):
    run = rest.get_training_run(runs[1].model_id).result()
    assert (run.training_run_id, run.base_model) == (runs[1].model_id, MODEL)
    assert (run.is_lora, run.lora_rank, run.corrupted) == (True, 2, False)
    assert run.user_metadata == {"number": "1"} and run.model_owner
    assert run.last_checkpoint.checkpoint_id == "weights/one"
    assert abs(datetime.now(UTC) - run.last_request_time) < timedelta(minutes=5)
    by_path = rest.get_training_run_by_tinker_path(run.last_checkpoint.tinker_path).result()
    assert by_path == run
    with pytest.raises(tinker.NotFoundError, match="nobody:train:0"):
        rest.get_training_run("nobody:train:0").result()


def test_checkpoints(rest, runs, path):
    everything = rest.list_user_checkpoints(limit=1000).result()
    paths = [one.tinker_path for one in everything.checkpoints]
    assert everything.cursor.total_count == len(paths)
    assert paths[0] == path, "newest first"
    assert [
        one.tinker_path for one in rest.list_user_checkpoints(limit=2, offset=1).result().checkpoints
    ] == paths[1:3]
    times = [one.time for one in everything.checkpoints]
    assert times == sorted(times, reverse=True)
    with pytest.raises(tinker.NotFoundError):
        rest.list_checkpoints("nobody:train:0").result()


def test_publishing(rest, path):
    for _ in range(2):
        # Not 409 the second time: the SDK would repeat it for five minutes.
        rest.publish_checkpoint_from_tinker_path(path).result(timeout=10)
        assert found(rest, path).public
    for _ in range(2):
        rest.unpublish_checkpoint_from_tinker_path(path).result(timeout=10)
        assert not found(rest, path).public
    with pytest.raises(tinker.NotFoundError):
        rest.publish_checkpoint_from_tinker_path(path + "x").result()


def test_time_to_live(rest, path):
    rest.set_checkpoint_ttl_from_tinker_path(path, 7200).result()
    left = found(rest, path).expires_at - datetime.now(UTC)
    assert timedelta(minutes=119) < left <= timedelta(hours=2)
    rest.set_checkpoint_ttl_from_tinker_path(path, None).result()
    assert found(rest, path).expires_at is None
    for wrong in (0, -1):
        with pytest.raises((tinker.BadRequestError, tinker.UnprocessableEntityError)):
            rest.set_checkpoint_ttl_from_tinker_path(path, wrong).result()


def test_deleting(rest, path, client):
    rest.delete_checkpoint_from_tinker_path(path).result()
    run, name = path.removeprefix("tinker://").split("/weights/")
    assert f"weights/{name}" not in [c.checkpoint_id for c in rest.list_checkpoints(run).result().checkpoints]
    with pytest.raises(tinker.NotFoundError):
        rest.delete_checkpoint(run, f"weights/{name}").result()
    with pytest.raises((tinker.RequestFailedError, tinker.NotFoundError)):
        client.create_training_client_from_state(path).result()


def test_weights_of_a_path(rest, runs, path):
    weights = rest.get_weights_info_by_tinker_path(path).result()
    assert (weights.base_model, weights.is_lora, weights.lora_rank) == (MODEL, True, 2)
    assert weights.optimizer_config.type == "adamw"
    sampler = runs[0].save_weights_for_sampler(f"of-{time.monotonic_ns()}").result().path
    assert rest.get_weights_info_by_tinker_path(sampler).result().lora_rank == 2
    with pytest.raises(tinker.NotFoundError):
        rest.get_weights_info_by_tinker_path(path + "x").result()
    with pytest.raises((tinker.BadRequestError, tinker.UnprocessableEntityError)):
        rest.get_weights_info_by_tinker_path("nonsense").result()


def test_sessions(rest, client, runs):
    own = client.holder.get_session_id()
    assert own in rest.list_sessions(limit=1000).result().sessions
    assert len(rest.list_sessions(limit=1).result().sessions) == 1
    assert set(rest.get_session(own).result().training_run_ids) >= {run.model_id for run in runs}
    with pytest.raises(tinker.NotFoundError):
        rest.get_session("nobody").result()


def test_samplers(rest, client):
    with pytest.raises(tinker.NotFoundError):
        rest.get_sampler("nobody:sample:0").result()


def search(rest, **request):
    return rest.search_sessions(types.SessionSearchRequest(**request)).result()


def test_searching_sessions(service, rest):
    mark = f"mark-{time.monotonic_ns()}"
    ids = {}
    for name, status in [("Red Apple", "success"), ("red pear", "errored"), ("green apple", None)]:
        client = tinker.ServiceClient(
            {"mark": mark, "name": name}, f"p-{mark}", display_name=name, base_url=service.url
        )
        run = client.create_lora_training_client(MODEL, rank=2).result()
        run.save_state("s").result()
        ids[name] = client.holder.get_session_id()
        if status:
            client.close(status).result()
        else:
            last = client  # else the session would end with its client
    assert last is not None
    names = {session_id: name for name, session_id in ids.items()}

    def names_of(**request):
        request = {"user_metadata": {"mark": mark}, **request}
        return [names[one.session_id] for one in search(rest, **request).sessions]

    newest_first = ["green apple", "red pear", "Red Apple"]
    assert names_of() == newest_first
    assert names_of(project_ids=[f"p-{mark}"]) == newest_first
    assert names_of(user_metadata={"mark": mark, "name": "red pear"}) == ["red pear"]
    assert names_of(user_metadata={"mark": "another"}) == []
    assert names_of(display_name="RED") == ["red pear", "Red Apple"]
    assert names_of(display_name="apple red") == ["Red Apple"]
    assert names_of(display_name="green", session_id=ids["Red Apple"]) == ["green apple", "Red Apple"]
    assert names_of(statuses=[types.ActiveSessionStatusQuery()]) == ["green apple"]
    assert names_of(statuses=[types.ClientFinishedSessionStatusQuery()]) == ["red pear", "Red Apple"]
    assert names_of(statuses=[types.ClientFinishedSessionStatusQuery(reasons=["errored"])]) == ["red pear"]
    assert names_of(statuses=[types.CancelledSessionStatusQuery()]) == []
    assert names_of(owner=types.AccessibleSearchOwner()) == newest_first
    assert names_of(owner=types.UserSearchOwner(owner_urns=["tml:organization_user:nobody"])) == []

    paged, cursor = [], None
    while True:
        page = search(rest, user_metadata={"mark": mark}, limit=2, cursor=cursor)
        assert len(page.sessions) <= 2
        paged += [names[one.session_id] for one in page.sessions]
        if (cursor := page.next_cursor) is None:
            break
    assert paged == newest_first

    (one,) = search(rest, session_id=ids["Red Apple"]).sessions
    assert (one.display_name, one.project_id, one.checkpoints_count) == ("Red Apple", f"p-{mark}", 1)
    assert one.user_metadata["mark"] == mark and one.checkpoint_storage_bytes > 1000
    assert one.owner and abs(datetime.now(UTC) - one.created_at) < timedelta(minutes=5)


def test_project_of_a_session(service, rest):
    client = tinker.ServiceClient(base_url=service.url)
    session_id = client.holder.get_session_id()
    rest.assign_session_project(session_id, "moved").result()
    (one,) = search(rest, session_id=session_id).sessions
    assert one.project_id == "moved"
    with pytest.raises(tinker.NotFoundError):
        rest.assign_session_project("nobody", "moved").result()


def test_copying_weights(service, rest, path, client):
    """The copy is a run of its own, in a session of its own, and loads."""
    copy = rest.copy_weights(path, "somewhere", ttl_seconds=3600).result()
    own = tinker.ServiceClient(base_url=service.url, project_id="elsewhere").copy_weights(path).result()
    assert len({copy, own, path}) == 3
    for copied in (copy, own):
        assert client.create_training_client_from_state(copied).result().get_info().lora_rank == 2


DAY = ("2026-07-13T00:00:00Z", "2026-07-14T00:00:00Z")


def admin(rest):
    return tinker.AdminClient(rest.holder)


NOT_OFFERED = {
    "audit": lambda rest: rest.get_audit_log(),
    "audit, by an administrator": lambda rest: admin(rest).get_audit_log(),
    "billing, for an administrator": lambda rest: admin(rest).get_billing_usage(*DAY),
    "storage, for an administrator": lambda rest: admin(rest).get_current_checkpoint_storage_usage(
        "a-project"
    ),
    "audit of a day": lambda rest: rest.get_audit_log("checkpoints", date(2026, 1, 1)),
    "billing": lambda rest: rest.get_billing_usage(*DAY),
    "storage": lambda rest: rest.get_current_checkpoint_storage_usage(),
    "trace": lambda rest: rest.export_session_trace(rest.list_sessions().result().sessions[0]),
}


@pytest.mark.parametrize("name", NOT_OFFERED)
def test_what_is_not_offered_is_not_found_at_once(rest, client, name):
    client.holder.get_session_id()
    start = time.monotonic()
    with pytest.raises(tinker.NotFoundError):
        NOT_OFFERED[name](rest).result(timeout=20)
    assert time.monotonic() - start < 5, "it was tried again and again"


def test_whoami(rest):
    me = rest.whoami().result()
    assert me.user_urn and me.org_urn.startswith("tml:organization:")


def test_async(rest, runs, path, client):
    run, name = path.removeprefix("tinker://").split("/", 1)

    async def story():
        assert (await rest.get_training_run_async(run)).training_run_id == run
        assert (await rest.get_training_run_by_tinker_path_async(path)).training_run_id == run
        assert (await rest.list_training_runs_async(limit=1)).cursor.limit == 1
        assert (await rest.get_weights_info_by_tinker_path(path)).base_model == MODEL
        assert path in [one.tinker_path for one in (await rest.list_user_checkpoints_async()).checkpoints]
        await rest.publish_checkpoint_from_tinker_path_async(path)
        await rest.set_checkpoint_ttl_from_tinker_path_async(path, 3600)
        (one,) = [c for c in (await rest.list_checkpoints_async(run)).checkpoints if c.checkpoint_id == name]
        assert one.public and one.expires_at
        await rest.unpublish_checkpoint_from_tinker_path_async(path)
        await rest.delete_checkpoint_from_tinker_path_async(path)
        with pytest.raises(tinker.NotFoundError):
            await rest.delete_checkpoint_async(run, name)
        own = client.holder.get_session_id()
        assert own in (await rest.list_sessions_async(limit=1000)).sessions
        assert run in (await rest.get_session_async(own)).training_run_ids
        await rest.assign_session_project_async(own, "elsewhere")
        for not_found in (
            rest.get_sampler_async("nobody:sample:0"),
            rest.get_external_weights_urls_async(f"tinker://{run}/external_weights/none"),
            rest.get_audit_log_async(),
            rest.get_billing_usage_async(*DAY),
            rest.get_current_checkpoint_storage_usage_async(),
            rest.export_session_trace_async(own),
            rest.copy_weights_async(f"tinker://{run}/weights/none", "elsewhere"),
        ):
            with pytest.raises(tinker.NotFoundError):
                await not_found

    asyncio.run(story())


def test_async_of_an_administrator(rest):
    async def story():
        client = tinker.AdminClient(rest.holder)
        for not_found in (
            client.get_audit_log_async(),
            client.get_billing_usage_async(*DAY),
            client.get_current_checkpoint_storage_usage_async(),
        ):
            with pytest.raises(tinker.NotFoundError):
                await not_found

    asyncio.run(story())


def test_paths_are_taken_apart_by_the_client(rest):
    for wrong in ("tinker://a/b", "tinker://a/other/b", "http://a/weights/b"):
        with pytest.raises(ValueError):
            rest.delete_checkpoint_from_tinker_path(wrong)
