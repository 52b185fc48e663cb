// What every transport of the core must do (`crates/retinker/tests/conformance`), by way of the package and Node's own fetch,
// against the same server: raw sockets that do what no proper server would.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import test from "node:test";

import { required } from "../browser/support/retinker.mjs";
import { installed } from "./support/folder.mjs";

const SERVER = required("RETINKER_CONFORMANCE_URL");
const PATH = "tinker://a:train:0/weights/b";

/** What that server answers as text. */
const said = async (path) => (await fetch(`${SERVER}${path}`)).text();

/** Options of a client whose every call goes to this path of the server; archives are at that path as well. */
const toward = (path) => ({
  baseUrl: SERVER,
  apiKey: "tml-1",
  retryForSeconds: 0,
  fetch: (url, init) => {
    if (url.endsWith("/client/config")) return Promise.resolve(new Response(null, { status: 404 }));
    if (url.endsWith("/archive")) return Promise.resolve(Response.json({ url: `${SERVER}${path}` }));
    return fetch(url.startsWith(`${SERVER}/api/`) ? `${SERVER}${path}` : url, init);
  },
});

async function whole(pieces) {
  const all = [];
  for await (const piece of pieces) all.push(piece);
  return Buffer.concat(all);
}

test("the transports' conformance, in Node", async (t) => {
  const { retinker } = await installed(t);
  const { ConfigError, ConnectionError, RestClient, StatusError, TrainingClient } = retinker;
  const at = (path) => new RestClient(toward(path));
  const download = (path, options) => at(path).downloadCheckpointArchive(PATH, options);

  await t.test("a slow body comes piece by piece", async () => {
    const id = randomUUID();
    const pieces = download(`/slow?id=${id}`);
    const first = await pieces.next();
    assert.equal(Buffer.from(first.value).toString(), "first ", "the rest does not exist yet");
    assert.equal(await said(`/release?id=${id}`), "released");
    assert.equal((await whole(pieces)).toString(), "second third");
  });

  await t.test("half a body is an error", async () => {
    for (const path of ["/half", "/half-chunked"]) {
      await assert.rejects(at(path).listTrainingRuns(), (error) => error instanceof ConnectionError, path);
      await assert.rejects(whole(download(path)), (error) => error instanceof ConnectionError, path);
    }
  });

  await t.test("a connection closed without an answer is an error", async () => {
    const id = randomUUID();
    await assert.rejects(at(`/closed?id=${id}`).listTrainingRuns(), (error) => error instanceof ConnectionError && error.retryable);
    assert.notEqual(await said(`/count?of=closed&id=${id}`), "0");
  });

  await t.test("nobody there is an error", async () => {
    const nobody = new RestClient({ baseUrl: "http://127.0.0.1:9", apiKey: "k", retryForSeconds: 0 });
    await assert.rejects(nobody.listTrainingRuns(), (error) => error instanceof ConnectionError && /127\.0\.0\.1:9/.test(error.message));
  });

  await t.test("an address or a header that is none is an error, and nothing is sent", async () => {
    for (const wrong of [{ baseUrl: "http://[" }, { baseUrl: SERVER, headers: { "x-bad": "line\nbreak" } }]) {
      const sent = [];
      const asks = async () => {
        const rest = new RestClient({ apiKey: "k", retryForSeconds: 0, ...wrong, fetch: async (url) => (sent.push(url), new Response()) });
        return rest.listTrainingRuns();
      };
      await assert.rejects(asks(), (error) => error instanceof ConfigError, JSON.stringify(wrong));
      assert.deepEqual(sent, []);
    }
  });

  await t.test("a redirect is not followed", async () => {
    const id = randomUUID();
    await assert.rejects(at(`/redirect?id=${id}`).listTrainingRuns(), (error) => error instanceof StatusError && error.status === 302);
    assert.equal(await said(`/count?of=redirected&id=${id}`), "0");
  });

  await t.test("a future is asked for until it is ready", async () => {
    const key = `not-yet:3:${randomUUID()}`;
    const options = toward("/api/v1/retrieve_future");
    const fetches = (url, init) => (url.endsWith("/optim_step") ? Promise.resolve(Response.json({ request_id: key })) : options.fetch(url, init));
    const client = await TrainingClient.attach({ sessionId: "s", modelId: "s:train:0", nextSeqId: 1 }, { ...options, fetch: fetches });
    const { metrics } = await client.optimStep({ learningRate: 1 });
    assert.equal(metrics.steps, 1);
    assert.equal(await said(`/count?of=future&id=${key}`), "4");
    client.dispose();
  });

  await t.test("a signal aborts a request", async () => {
    const id = randomUUID();
    const controller = new AbortController();
    const hanging = at(`/hang?id=${id}`).listTrainingRuns({ signal: controller.signal });
    assert.equal(await said(`/wait?for=asked-hang&id=${id}`), "yes");
    controller.abort();
    await assert.rejects(hanging, { name: "AbortError" });
    assert.equal(await said(`/wait?for=gone&id=${id}`), "yes");
  });

  await t.test("leaving a body aborts it, and so does a signal", async () => {
    const left = randomUUID();
    for await (const piece of download(`/endless?id=${left}`)) {
      assert.ok(piece.length > 0);
      break;
    }
    assert.equal(await said(`/wait?for=gone&id=${left}`), "yes");
    const aborted = randomUUID();
    const controller = new AbortController();
    const reading = (async () => {
      for await (const _ of download(`/endless?id=${aborted}`, { signal: controller.signal })) controller.abort();
    })();
    await assert.rejects(reading, { name: "AbortError" });
    assert.equal(await said(`/wait?for=gone&id=${aborted}`), "yes");
  });

  await t.test("a big body comes whole", async () => {
    const body = await whole(download("/big?bytes=20000003"));
    assert.equal(body.length, 20_000_003);
    assert.ok(body.every((byte, index) => byte === index % 251));
  });

  await t.test("a big body goes whole", async () => {
    const tokens = 600_000;
    const example = {
      modelInput: Int32Array.from({ length: tokens }, (_, index) => index),
      lossFnInputs: { target_tokens: BigInt64Array.from({ length: tokens }, (_, index) => BigInt(index)), weights: new Float32Array(tokens).fill(0.5) },
    };
    let [sent, answer] = [];
    const options = toward("/echo");
    const fetches = async (url, init) => {
      if (!url.endsWith("/forward_backward")) return options.fetch(url, init);
      // Before it goes: the bytes of a body that is given must not change under the one who sends it.
      sent = Buffer.from(init.body);
      answer = await (await options.fetch(url, init)).text();
      return new Response("", { status: 400 });
    };
    const client = await TrainingClient.attach({ sessionId: "s", modelId: "s:train:0", nextSeqId: 1 }, { ...options, fetch: fetches });
    await assert.rejects(client.forwardBackward([example], "cross_entropy"));
    client.dispose();
    assert.ok(sent.length > tokens * 16);
    const sum = sent.reduce((sum, byte) => BigInt.asUintN(64, sum * 31n + BigInt(byte)), 0n);
    const [method, counted, ...headers] = answer.split("\n");
    assert.deepEqual([method, counted], ["POST", `${sent.length} ${sum}`]);
    assert.ok(headers.includes("content-type: application/x-protobuf"), answer);
  });

  await t.test("methods and headers arrive", async () => {
    const seen = [];
    const options = toward("/echo");
    const fetches = async (url, init) => {
      const answer = await options.fetch(url, init);
      seen.push((await answer.clone().text()).split("\n"));
      return answer;
    };
    const rest = new RestClient({ ...options, headers: { "X-Team": "blue" }, fetch: fetches });
    // What is told is no answer to these.
    await rest.listTrainingRuns().catch(() => {});
    await rest.publishCheckpointFromTinkerPath(PATH).catch(() => {});
    await rest.setCheckpointTtlFromTinkerPath(PATH, 60).catch(() => {});
    await rest.deleteCheckpointFromTinkerPath(PATH).catch(() => {});
    const asked = seen.filter(([, , ...headers]) => headers.length > 0);
    assert.deepEqual(asked.map(([method]) => method).filter((method, index, all) => method !== all[index - 1]), ["GET", "POST", "PUT", "DELETE"]);
    for (const [method, , ...headers] of asked) {
      for (const line of ["x-api-key: tml-1", "x-team: blue", "accept: application/json"]) {
        assert.ok(headers.includes(line), `${line} of ${method}: ${headers}`);
      }
    }
  });

  await t.test("errors hold no query", async () => {
    const failed = await whole(download("/half?token=s3cret")).catch((error) => error);
    assert.ok(failed instanceof ConnectionError);
    for (let error = failed; error; error = error.cause) {
      assert.ok(!`${error.message} ${error.stack} ${JSON.stringify(error)}`.includes("s3cret"), error.stack);
    }
  });

  await t.test("many requests at once", async () => {
    const lengths = Array.from({ length: 50 }, (_, index) => index * 1000);
    const bodies = await Promise.all(lengths.map((length) => whole(download(`/big?bytes=${length}`))));
    assert.deepEqual(bodies.map(({ length }) => length), lengths);
  });
});
