"""Writes the part of the corpus that is made from what was really said: by other servers (servers.json of the client's
tests), by the official package (as tests/sdk/test_rust_wire.py has it make messages), and by a service of this repository,
whose `serve` example is named on the command line. What fuzzing found lies beside it under names of its own and stays.

    python tests/fuzz/seeds.py target/debug/examples/serve
"""

import json
import random
import re
import struct
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests/sdk"))

import test_rust_wire as official  # noqa: E402

SESSION = "00000000-0000-4000-8000-000000000000"
RUN = f"{SESSION}:train:0"
JSON = "application/json"
PROTOBUF = "application/x-protobuf"


def write(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(data if isinstance(data, bytes) else data.encode())


def parts(*all_parts):
    return b"\n--\n".join(part if isinstance(part, bytes) else part.encode() for part in all_parts)


def text(value):
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def reply(body, status=200, kind=JSON, **headers):
    head = f"{status}; content-type={kind}" + "".join(f"; {name}={value}" for name, value in headers.items())
    return head.encode() + b"\n" + (body if isinstance(body, bytes) else text(body).encode())


# -- the client ---------------------------------------------------------------------------------------------------------


def calls():
    """What the client can be made to do, in the order of client.rs."""
    block = re.search(r"const CALLS.*?\{\n(.*?)\n\};", (HERE / "src/client.rs").read_text(), re.S)[1]
    return re.findall(r"api => (.*);", block)


CALLS = calls()


def call(of):
    """The first byte of an input of the client's."""
    [found] = [found for found in CALLS if found == of] or [found for found in CALLS if of in found]
    return bytes([CALLS.index(found)])


#: What part of the client reads the answers of an endpoint; those that submit are answered a request first.
ENDPOINTS = [
    ("POST client/config", "api.client_config()"),
    ("POST client/dynamic_config", "api.dynamic_config()"),
    ("GET get_server_capabilities", "api.capabilities()"),
    ("POST create_session", "api.create_session("),
    ("POST session_heartbeat", "api.session_heartbeat("),
    (r"POST sessions/[^/]+/finish", "api.finish_session("),
    ("POST sessions/search", "api.search_sessions("),
    (r"GET sessions\?.*|GET sessions", "api.list_sessions("),
    (r"GET sessions/[^/]+", "api.get_session("),
    ("POST create_model", "api.create_model("),
    ("POST get_info", "api.get_info("),
    ("POST forward_backward", "forward_backward(api)"),
    ("POST optim_step", "api.optim_step("),
    ("POST save_weights", "api.save_weights("),
    ("POST save_weights_for_sampler", "api.save_weights_for_sampler("),
    ("POST load_weights", "api.load_weights("),
    ("POST weights_info", "api.weights_info("),
    ("POST asample", "asample(api)"),
    ("POST create_sampling_session", "api.create_sampling_session("),
    (r"GET samplers/[^/]+", "api.get_sampler("),
    (r"GET training_runs(\?.*)?", "api.training_runs("),
    (r"GET training_runs/[^/]+", "api.training_run_in("),
    (r"GET training_runs/[^/]+/checkpoints", "api.run_checkpoints("),
    (r"GET checkpoints(\?.*)?", "api.user_checkpoints("),
    (r"DELETE training_runs/[^/]+/checkpoints/[^/]+/[^/]+", "api.delete_checkpoint("),
    (r".* training_runs/[^/]+/checkpoints/[^/]+/[^/]+/publish", "api.set_checkpoint_public("),
    (r"PUT training_runs/[^/]+/checkpoints/[^/]+/[^/]+/ttl", "api.set_checkpoint_ttl("),
    (r"GET training_runs/[^/]+/checkpoints/[^/]+/[^/]+/archive", "api.checkpoint_archive_address("),
]

RESULTS = {
    "CreateModel": "CreateModelResult",
    "LoadWeights": "LoadWeightsResult",
    "SaveWeights": "SaveWeightsResult",
    "SaveWeightsForSampler": "SaveWeightsForSamplerResult",
    "ForwardBackward": "ForwardBackwardOutput",
    "Forward": "ForwardBackwardOutput",
    "OptimStep": "OptimStepResult",
    "Sample": "SampleResponse",
}

ACCEPTED = reply({"request_id": "r", "type": "untyped"})
NOT_YET = reply({"type": "try_again", "request_id": "r", "queue_state": "paused_capacity", "queue_state_reason": "busy"})
FAILED = reply({"error": "it is too long", "category": "user", "type": "request_failed"})


def servers():
    exchanges = json.loads((ROOT / "crates/retinker/src/client/tests/servers.json").read_text())
    for number, exchange in enumerate(exchanges):
        line = f"{exchange['method']} {exchange['path'].removeprefix('/api/v1/')}"
        headers = {"location": exchange["location"]} if exchange.get("location") else {}
        body = "" if exchange["body"] is None else exchange["body"]
        answer = reply(body, exchange["status"], **headers)
        if line == "POST retrieve_future":
            of = f"retrieve_future::<{RESULTS.get(exchange.get('type'), 'OptimStepResult')}>"
        else:
            found = [of for pattern, of in ENDPOINTS if re.fullmatch(pattern, line)]
            if not found:
                continue
            of = found[0]
        write("client", f"{exchange['server']}-{number:03}", call(of) + answer)


def client():
    servers()
    chance = random.Random(1)
    for number in range(6):
        output = official.output(chance).SerializeToString()
        sample = official.response(chance).SerializeToString()
        for of, body in [("ForwardBackwardOutput", output), ("SampleResponse", sample)]:
            answers = parts(NOT_YET, reply(body, kind=PROTOBUF))
            write("client", f"official-{of}-{number}", call(f"retrieve_future::<{of}>") + answers)
    busy = [reply({"detail": "slow down"}, 429, **{"retry-after": "3"}), b"connect", reply("", 503), b"request", b"never"]
    write("client", "storm", call("api.optim_step(") + parts(*busy, ACCEPTED, *busy, NOT_YET, FAILED))
    write("client", "billing", call("api.optim_step(") + parts(reply({"detail": "pay"}, 402), ACCEPTED, reply("{}")))
    write("client", "again-and-again", bytes([128 + (CALLS.index("train(api)") - 128) % len(CALLS)]) + NOT_YET)
    pages(chance)
    write("client", "train", call("train(api)") + training())
    write("client", "custom-loss", call("custom(api)") + custom_loss())
    saved = [ACCEPTED, reply({"path": "tinker://s:train:0/external_weights/a"})]
    urls = {"urls": {"adapter_model.safetensors": "http://files.test/a"}, "expires": "2026-01-01T01:00:00Z"}
    write("client", "external", call("external(api)") + parts(*opened(), *MADE, *saved, reply(urls)))
    made = [ACCEPTED, reply({"loss_id": "l", "type": "create_custom_loss"})]
    write("client", "uploaded", call("uploaded(api)") + parts(*opened(custom_loss_server_side=True), *made))
    write("client", "telemetry", call("reported(api)") + parts(reply({}, 503), reply({"status": "accepted"})))
    write("client", "sample", call("sample(api)") + sampling(together=False))
    write("client", "sample-together", call("sample(api)") + sampling(together=True))
    token = ".".join(["eyJhbGciOiJIUzI1NiJ9", "eyJleHAiOjE3NjcyMjkyMDAsImlhdCI6MTc2NzIyNTYwMCwic3ViIjoidSIsIm9yZ19pZCI6Im8ifQ", "x"])
    refused = reply({"detail": "old"}, 401, **{"www-authenticate": 'Bearer error="invalid_token"'})
    exchanged = reply({"jwt": token})
    write("client", "tokens", call("exchanging(api)") + parts(exchanged, refused, exchanged, reply({"status": "ok"})))
    write("client", "whoami", call("whoami()") + exchanged)
    ready = [reply({"status": "pending"}), reply({"status": "ready", "url": "http://files.test/t"})]
    write("client", "trace", call("export_session_trace(") + parts(*ready))
    beginning = b"206; content-range=bytes 3-9/10; etag=a; @pieces=2; @cut\nabc"
    rest = b"206; content-range=bytes 6-9/10; etag=a\nefgh"
    write("client", "download", call("download(api)") + parts("302; location=http://a.test/b", beginning, rest))
    write("client", "restore", call("restore(api)") + parts(*restore()))


def run(**members):
    return {
        "training_run_id": "s:train:0", "base_model": "m", "model_owner": "o", "is_lora": True, "corrupted": True,
        "lora_rank": 8, "last_request_time": "2025-12-31T23:00:00Z", "last_checkpoint": checkpoint(), **members,
    }


def checkpoint(name="a"):
    return {
        "checkpoint_id": f"weights/{name}", "checkpoint_type": "training", "time": "2025-12-31T22:00:00Z",
        "tinker_path": f"tinker://s:train:0/weights/{name}", "size_bytes": 9, "public": False, "expires_at": None,
    }


def pages(chance):
    for of, member, entries in [
        (".training_runs(2)", "training_runs", [run(training_run_id=f"s:train:{n}") for n in range(5)]),
        (".user_checkpoints(2)", "checkpoints", [checkpoint(f"c{n}") for n in range(5)]),
        (".sessions(2)", "sessions", [f"s{n}" for n in range(5)]),
    ]:
        found = [entries[offset : offset + 2] for offset in range(5)]
        cursor = {"offset": 0, "limit": 2, "total_count": 5}
        answers = parts(*(reply({member: page, "cursor": cursor}) for page in found))
        write("client", f"pages-of-{member}", call(of) + answers)


def opened(**config):
    return [
        reply({"pjwt_auth_enabled": False, **config}),
        reply({"refresh_interval_sec": 60, "sample_cancel_enabled": True}),
        reply({"type": "create_session", "session_id": "s"}),
    ]


#: What makes a run.
MADE = [ACCEPTED, reply({"model_id": "s:train:0", "type": "create_model"})]


def custom_loss():
    output = official.pb.ForwardBackwardOutput(metrics={"loss:sum": 1.0})
    field = output.loss_fn_outputs.add(num_datums=3).fields["logprobs"]
    field.dtype = official.pb.DTYPE_FLOAT32
    field.data = struct.pack("<6f", *[-1.0] * 6)
    field.offsets = struct.pack("<4q", 0, 8, 16, 24)
    result = reply(output.SerializeToString(), kind=PROTOBUF)
    return parts(*opened(), *MADE, ACCEPTED, result, ACCEPTED, ACCEPTED, result, reply({"metrics": {}}))


def training():
    output = official.output(random.Random(4)).SerializeToString()
    results = [reply(output, kind=PROTOBUF), reply({"metrics": {}}), reply({"path": "tinker://s:train:0/weights/a"})]
    return parts(*opened(parallel_fwdbwd_chunks=True, fwdbwd_max_chunk_len=2), *MADE, *[ACCEPTED] * 4, *results * 2)


def sampling(together):
    accepted = reply({"request_id": "r", "sample_sequence_ids": ["q"]})
    result = reply(official.response(random.Random(2)).SerializeToString(), kind=PROTOBUF)
    news = reply({"cursor": 1, "completions": [{"state": "finished", "request_id": "r"}]})
    begun = [*opened(sample_use_retrieve_futures=together), reply({"sampling_session_id": "s:sample:0"})]
    return parts(*begun, *[accepted] * 3, *([news] if together else []), *[result] * 3)


def restore():
    info = {"base_model": "m", "is_lora": True, "lora_rank": 8}
    asked = [run(), {"checkpoints": [checkpoint()]}, {"supported_models": [{"model_name": "m"}]}, info]
    begun = [run(), {"checkpoints": [checkpoint()]}, {"training_runs": [], "cursor": {"offset": 0, "limit": 9, "total_count": 0}}]
    loaded = [{"session_id": "t"}, {"request_id": "r"}, {"path": "tinker://s:train:0/weights/a", "model_id": "t:train:0"}]
    return [reply(answer) for answer in [*asked, *begun, *loaded, run(training_run_id="t:train:0", corrupted=False)]]


# -- the protocol -------------------------------------------------------------------------------------------------------


def forms():
    """What the protocol's target can read, in the order of protocol.rs."""
    block = re.search(r"readers!\[\n(.*?)\n\];", (HERE / "src/protocol.rs").read_text(), re.S)[1]
    return [name.split("::")[-1] for name in re.findall(r"[\w:]+", block)]


FORMS = forms()


def protocol():
    def put(form, name, data):
        data = data if isinstance(data, bytes) else text(data).encode()
        write("protocol", f"{form}-{name}", bytes([FORMS.index(form)]) + data)

    for name, value in enumerate(["2025-10-09T08:53:20.123+00:00", "2025-10-09T08:53:20.123000", "tinker://r:train:0/weights/a"]):
        put("texts", name, value)
    put("metrics", 0, [[{"loss:sum": 1.5, "a:mean": 2.0, "b:unique": 3.0, "c:slack": 1.0, "d:hash2": 7.0}, 3]] * 2)
    chance = random.Random(3)
    for number in range(12):
        made = official.request(chance)
        put("request", number, official.official(made).SerializeToString())
        put("output", number, official.output(chance).SerializeToString())
        put("sample", number, official.response(chance).SerializeToString())
        for datum in made["data"][:1]:
            plain = official.as_json(datum)
            put("datum_json", number, plain)
            for tensor in list(plain["loss_fn_inputs"].values())[:1]:
                put("tensor_json", number, tensor)
    for form, value in examples().items():
        put(form, "example", value)


def examples():
    session = {"session_id": "s", "created_at": "2026-01-01T00:00:00Z", "tags": ["a"], "user_metadata": {"k": "v"}, "status": "active"}
    asked = {"tags": [], "user_metadata": {"k": 1}, "sdk_version": "0.38.0", "project_id": "p", "type": "create_session"}
    return {
        "ErrorBody": {"detail": [{"loc": ["body"], "msg": "Field required", "type": "missing"}]},
        "CreateSessionRequest": asked,
        "CreateModelRequest": {"session_id": "s", "model_seq_id": 0, "base_model": "m", "lora_config": {"rank": 8, "seed": 1}, "user_metadata": {"a": "b"}},
        "LoadWeightsRequest": {"model_id": "s:train:0", "path": "tinker://s:train:0/weights/a", "optimizer": True, "seq_id": 1},
        "OptimStepRequest": {"model_id": "s:train:0", "seq_id": 1, "adam_params": {"learning_rate": 1e-4, "beta1": 0.9, "grad_clip_norm": 1.0}},
        "AsampleRequest": {"prompt": {"chunks": [{"type": "encoded_text", "tokens": [1]}]}, "sampling_params": {"stop": ["a"], "seed": 1}, "sampling_session_id": "s:sample:0", "seq_id": 0},
        "RetrieveFuturesRequest": {"target": {"type": "sampling_session", "sampling_session_id": "s", "cloned_sampler_id": 0}, "prev_cursor": 0, "retrieved_request_ids": ["r"]},
        "RetrieveFuturesResponse": {"cursor": 1, "completions": [{"state": "finished", "request_id": "r"}]},
        "RetrieveFutureRequest": {"request_id": "r", "allow_metadata_only": True},
        "SessionSearchRequest": {"limit": 5, "tags": ["a"], "user_metadata": {"k": "v"}, "status": ["active"], "cursor": {"created_at": "2026-01-01T00:00:00Z", "session_id": "s"}},
        "SessionSearchResponse": {"sessions": [session], "next_cursor": None},
        "TrainingRunsResponse": {"training_runs": [run()], "cursor": {"offset": 0, "limit": 1, "total_count": 1}},
        "BillingUsageResponse": {"data": [{"bucket_start": "2026-01-01T00:00:00Z", "bucket_end": "2026-01-01T01:00:00Z", "event_info": {"type": "training", "token_count": 3}}]},
        "TraceExport": {"status": "failed", "error": "e"},
        "ModelInput": {"chunks": [{"type": "image", "data": "AAAA", "format": "png", "expected_tokens": 3}, {"type": "dmel", "dmel": "AAEC"}]},
        "ExternalWeightsUrls": {"urls": {"a.safetensors": "http://a"}},
        "SaveWeightsForSamplerRequest": {"model_id": "m", "path": "a", "seq_id": 1, "sampling_session_seq_id": 2},
    }


# -- files --------------------------------------------------------------------------------------------------------------


def tar(*files):
    import io
    import tarfile

    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../outside"
        if files[0][0] == "link-first":
            archive.addfile(link)
    return into.getvalue().rstrip(b"\0") + b"\0" * 1024


def tensors():
    header = b'{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return struct.pack("<Q", len(header)) + header + bytes(4)


def download():
    asked = "302; location=http://files.test/a"
    for name, files in {
        "archive": [("adapter_model.safetensors", tensors()), ("d/adapter_config.json", b"{}")],
        "archive-upwards": [("../outside", b"x")],
        "archive-link": [("link-first", b"x")],
    }.items():
        body = tar(*files)
        answer = f"200; content-length={len(body)}; accept-ranges=bytes; @pieces=700\n".encode() + body
        write("download", name, b"\0" + parts(asked, answer))
    urls = reply({"urls": {"adapter_model.safetensors": "http://files.test/a", "b.json": "http://files.test/b"}})
    body = tensors()
    whole = f"200; content-length={len(body)}; accept-ranges=bytes; etag=v\n".encode() + body
    broken = f"200; content-length={len(body)}; accept-ranges=bytes; etag=v; @pieces=9; @cut\n".encode() + body[:30]
    rest = f"206; content-range=bytes 30-{len(body) - 1}/{len(body)}; etag=v\n".encode() + body[30:]
    write("download", "files", b"\1" + parts(urls, whole, b"200\n{}"))
    write("download", "files-broken-off", b"\1" + parts(urls, broken, rest, b"200\n{}"))
    write("download", "files-elsewhere", b"\1" + parts(reply({"urls": {"../b.json": "http://files.test/b"}}), b"200\n{}"))


def credentials():
    keys = {"version": 1, "default": "b", "keys": {"a": {"type": "manual", "key": "tml-a"}, "b": {"type": "manual", "key": "tml-b", "name": "b"}}}
    handle = "eyJzZXNzaW9uX2lkIjoicyIsInNhbXBsaW5nX3Nlc3Npb25faWQiOiJzOnNhbXBsZTowIn0="
    write("credentials", "stored", parts(text(keys), "", "", handle))
    write("credentials", "given", parts("{}", "https://service.test/prefix/", "tml-given", handle))
    jwt = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3NjcyMjkyMDAsImlhdCI6MTc2NzIyNTYwMH0.x"
    write("credentials", "token", parts("", "http://127.0.0.1:8000", jwt, handle[:-1]))
    wrong = {"default": "b", "keys": {"b": {"key": 5, "other": "tml-secret-secret-secret"}}}
    write("credentials", "damaged", parts(text(wrong), "", "", "%"))


# -- the host and its journal -------------------------------------------------------------------------------------------


def plan():
    return {
        "schema": 1, "id": "plan-0", "run_id": "s:train:0", "made_at": "2026-01-01T00:00:00Z", "checkpoint": checkpoint(),
        "why": "w", "optimizer": True, "base_model": "m", "lora_rank": 8, "root_run_id": "s:train:0", "generation": 1,
        "user_metadata": {"retinker.root": "s:train:0"}, "lost": {"seconds": 3600, "steps": 3, "summary": "l"},
        "checks": [{"name": "n", "outcome": "passed", "detail": "d"}], "rejected": [],
    }  # fmt: skip


def record(state="planned", **members):
    event = {"at": "2026-01-01T00:00:00Z", "state": state, "message": "m"}
    return {
        "id": "restore-0", "plan": plan(), "state": state, "events": [event], "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z", **members,
    }  # fmt: skip


def adopted():
    attachment = {"session_id": "t", "model_id": "t:train:0", "next_seq_id": 1}
    return record("adopted", session_id="t", model_seq_id=0, new_run_id="t:train:0", attachment=attachment)


def journal():
    loaded = restore()[7:]
    write("journal", "planned", parts(text(record()), *loaded))
    write("journal", "loading", parts(text(record("loading", session_id="t", model_seq_id=0)), *loaded[1:]))
    write("journal", "adopted", parts(text(adopted())))
    write("journal", "newer", text({"plan": {"schema": 2}}))


def host():
    requests = {
        "status": b"GET /retinker/v1/status",
        "runs": b"GET /retinker/v1/runs?health=poisoned&q=a%20b&sort=name&offset=0&limit=5",
        "plan": parts('POST /retinker/v1/plans; content-type=application/json\n{"run_id":"s:train:0","strategy":{"type":"specific","path":"tinker://s:train:0/weights/a"},"optimizer":true}'),
        "restore": parts("POST /retinker/v1/restores; content-type=application/json\n" + text({"plan": plan()})),
        "hand-over": b"POST /retinker/v1/restores/restore-0/hand-over; content-type=application/json\n{}",
        "forward": b"GET /api/v1/training_runs?limit=2",
        "asset": b"GET /",
        "elsewhere": parts("GET /retinker/v1/runs/s%3Atrain%3A0; origin=http://evil.test", "DELETE /retinker/v1/restores"),
    }
    for name, request in requests.items():
        write("host", name, request)


def host_client():
    verdict = {"health": "poisoned", "reason": "r", "facts": []}
    row = {"run": run(), "name": "n", "verdict": verdict, "lost": None}
    service = {"name": "n", "kind": "remote", "base_url": "http://a", "base_models": ["m"], "problem": None}
    answers = [
        {"version": "0.1.0", "service": service, "as_of": "2026-01-01T00:00:00Z", "demo": None},
        {"rows": [row], "total": 1, "counts": {}, "as_of": None},
        {"row": row, "checkpoints": [checkpoint()], "restores": []},
        {"type": "plan", "plan": plan()},
        {"restores": [record(), adopted()]},
        record(),
        {"restore": adopted(), "snippets": []},
    ]
    for number, answer in enumerate(answers):
        write("host_client", f"answer-{number}", bytes([number, 7]) + reply(answer))
    problem = {"code": "c", "message": "m", "hint": "h"}
    write("host_client", "problem", bytes([0, 3]) + reply(problem, 409))
    stream = ": hello\n\ndata: " + text({"type": "runs_changed"}) + "\r\n\r\nevent: x\ndata: {\"a\":\ndata: 1}\r\rdata: " + text({"type": "restore_changed", "record": record()}) + "\n\ndata: cut"
    write("host_client", "events", bytes([7, 5]) + reply(stream, kind="text/event-stream"))


def tokenizers():
    commit = {"x-repo-commit": "0123456789abcdef0123456789abcdef01234567"}
    whole = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": {"type": "NFC"}, "decoder": None,
        "added_tokens": [{"id": 3, "content": "<end>", "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}],
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing", "pair": [],
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<end>", "type_id": 0}}],
            "special_tokens": {"<end>": {"id": "<end>", "ids": [3], "tokens": ["<end>"]}},
        },
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "?": 2}, "unk_token": "?"},
    }
    config = reply({"eos_token": {"content": "<end>"}, "bos_token": None}, **commit)
    pairs = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], "byte_fallback": True}
    write("tokenizers", "words", parts("a b ü<end>", config, reply(whole, **commit)))
    write("tokenizers", "pairs", parts("abba", reply("", 404, **commit), reply({**whole, "model": pairs}, **commit)))
    elsewhere = "302; location=http://files.test/a; x-repo-commit=0123456789abcdef"
    write("tokenizers", "elsewhere", parts("a", config, elsewhere, "200; accept-ranges=bytes; content-length=9; @cut\n{}", reply(whole)))
    write("tokenizers", "refused", parts("a", reply({}, 503), reply("", 401)))


# -- the embedded service -----------------------------------------------------------------------------------------------


def service():
    def put(name, line, body="", **headers):
        head = line + "".join(f"; {header}={value}" for header, value in headers.items())
        write("service", name, head.encode() + b"\n" + (body if isinstance(body, bytes) else text(body).encode()))

    description = json.loads(next((ROOT / "crates/local").rglob("openapi.json")).read_text())
    for path, methods in description["paths"].items():
        for method in methods:
            filled = re.sub(r"\{(session|run|sampler)_id\}", lambda name: ids()[name[1]], path)
            filled = filled.replace("{checkpoint_id}", "weights%2Fa")
            filled = re.sub(r"\{[^}]+\}", "x", filled)
            put(f"{method}-{re.sub(r'[^a-z_]+', '-', path.removeprefix('/api/v1'))}", f"{method.upper()} {filled}", bodies().get(path.rsplit("/", 1)[-1], {}))
    made = official.request(random.Random(7))
    made.update(model_id=RUN, seq_id=1)
    body = official.official(made).SerializeToString()
    protobuf = {"content-type": PROTOBUF}
    put("forward_backward-official", "POST /api/v1/forward_backward", body, **protobuf)
    put("forward_backward-cut", "POST /api/v1/forward_backward", body[: len(body) // 2], **protobuf)
    # A frame of zstd with one raw block.
    frame = b"\x28\xb5\x2f\xfd\x20" + bytes([min(len(body), 255)]) + struct.pack("<I", (len(body[:255]) << 3) | 1)[:3] + body[:255]
    put("forward_backward-zstd", "POST /api/v1/forward_backward", frame, **protobuf, **{"content-encoding": "zstd"})
    put("unreadable", "POST /api/v1/optim_step", f'{{"model_id":"{RUN}","seq_id":7,"adam_params":{{"learning_rate":NaN}}}}')
    put("hub", "GET /retinker/nano-llama/resolve/main/tokenizer.json")
    put("runs", "GET /api/v1/training_runs?limit=1&offset=0&project_id=p")
    put("changes", "GET /retinker/local/v1/changes?since=0")
    put("metrics", f"GET /retinker/local/v1/runs/{RUN}/metrics?from=0&to=9")
    put("preflight", "OPTIONS /api/v1/training_runs", "", origin="http://localhost:3000")


def ids():
    return {"session": SESSION, "run": RUN, "sampler": f"{SESSION}:sample:0"}


def bodies():
    """By the last part of the path."""
    datum = official.as_json(official.datum(random.Random(11)))
    sampled = {"prompt": {"chunks": [{"type": "encoded_text", "tokens": [1, 2]}]}, "sampling_params": {"max_tokens": 2, "seed": 1}}
    batch = {"data": [datum], "loss_fn": "cross_entropy", "loss_fn_config": {"a": 1}}
    path = f"tinker://{RUN}/weights/a"
    return {
        "create_session": examples()["CreateSessionRequest"],
        "session_heartbeat": {"session_id": SESSION},
        "search": {**examples()["SessionSearchRequest"], "cursor": {"created_at": "2026-01-01T00:00:00Z", "session_id": SESSION}},
        "finish": {"reason": {"type": "success"}, "detail": "d"},
        "project": {"project_id": "p"},
        "create_sampling_session": {"session_id": SESSION, "sampling_session_seq_id": 0, "base_model": "retinker/nano-llama"},
        "join_sampling_session": {"sampling_session_id": f"{SESSION}:sample:0"},
        "create_model": {"session_id": SESSION, "model_seq_id": 1, "base_model": "retinker/nano-llama", "lora_config": {"rank": 1, "seed": 1}},
        "get_info": {"model_id": RUN},
        "unload_model": {"model_id": RUN},
        "forward_backward": {"forward_backward_input": batch, "model_id": RUN, "seq_id": 1},
        "forward": {"forward_input": batch, "model_id": RUN, "seq_id": 1},
        "optim_step": {"model_id": RUN, "seq_id": 2, "adam_params": {"learning_rate": 1e-4}},
        "save_weights": {"model_id": RUN, "seq_id": 3, "path": "a", "ttl_seconds": 60},
        "load_weights": {"session_id": SESSION, "model_seq_id": 2, "path": path, "optimizer": True},
        "save_weights_for_sampler": {"model_id": RUN, "seq_id": 4, "path": "b"},
        "save_weights_external": {"model_id": RUN, "seq_id": 5, "path": "c"},
        "weights_info": {"tinker_path": path},
        "copy_weights": {"source_path": path},
        "retrieve_future": {"request_id": f"{RUN}:1"},
        "retrieve_futures": {"target": {"type": "sampling_session", "sampling_session_id": f"{SESSION}:sample:0", "cloned_sampler_id": 0}, "prev_cursor": 0, "timeout": 0, "retrieved_request_ids": []},
        "cancel_future": {"request_id": "r"},
        "asample": {**sampled, "sampling_session_id": f"{SESSION}:sample:0", "seq_id": 0},
        "ttl": {"ttl_seconds": 60},
        "telemetry": {"events": [{"event": "SESSION_START"}], "session_id": SESSION},
    }


def checkpoint_of_service(program):
    """A checkpoint that the service has written."""
    with tempfile.TemporaryDirectory() as data:
        process = subprocess.Popen([program, data], stdout=subprocess.PIPE, text=True)
        try:
            base = process.stdout.readline().strip()
            folder = saved(base, Path(data))
            files = ["manifest.json", "adapter_model.safetensors", "optimizer.safetensors"]
            whole = [(folder / name).read_bytes() for name in files]
        finally:
            process.terminate()
            process.wait()
    write("checkpoint", "whole", parts(*whole))
    write("checkpoint", "weights", parts(*whole[:2]))
    write("checkpoint", "headers", parts(whole[0], whole[1][:900], whole[2][:900]))


def saved(base, data):
    def ask(path, body):
        headers = {"content-type": JSON, "x-api-key": "tml-seeds"}
        request = urllib.request.Request(f"{base}/api/v1/{path}", json.dumps(body).encode(), headers)
        return json.load(urllib.request.urlopen(request))

    def done(path, body):
        request_id = ask(path, body)["request_id"]
        while (answer := ask("retrieve_future", {"request_id": request_id})).get("type") == "try_again":
            pass
        return answer

    session = ask("create_session", {"tags": [], "user_metadata": {}, "sdk_version": "x"})["session_id"]
    shape = {"rank": 1, "seed": 1, "train_mlp": False, "train_unembed": False}
    made = {"session_id": session, "model_seq_id": 0, "base_model": "retinker/nano-llama", "lora_config": shape}
    run_id = done("create_model", made)["model_id"]
    done("save_weights", {"model_id": run_id, "seq_id": 1, "path": "a"})
    [manifest] = data.rglob("manifest.json")
    return manifest.parent


if __name__ == "__main__":
    client()
    protocol()
    download()
    credentials()
    journal()
    host()
    host_client()
    service()
    tokenizers()
    checkpoint_of_service(sys.argv[1])
