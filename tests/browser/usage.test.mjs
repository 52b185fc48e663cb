// What is stored and what is used, of a service that bills: the embedded one does not, so another speaks for it.
import assert from "node:assert/strict";
import { test } from "node:test";

import { openCheckpoint } from "./support/acting.mjs";
import { byTestId, openBrowser, openPage, picture } from "./support/browser.mjs";
import { Misbehaving } from "./support/misbehaving.mjs";
import { Retinker } from "./support/retinker.mjs";
import { Service } from "./support/service.mjs";

const HOUR = 3_600_000;
const [ONE, OTHER] = ["0f8b2c4e-1111-4aaa-9bbb-000000000001", "0f8b2c4e-2222-4aaa-9bbb-000000000002"];

/** Usage of one hour, so many hours ago; the hours are whole, as services tell them. */
function hour(ago, base_model, session_id, project_id, estimated_cost_usd, event_info) {
  const begin = Math.floor(Date.now() / HOUR) * HOUR - ago * HOUR;
  const [bucket_start, bucket_end] = [begin, begin + HOUR].map((at) => new Date(at).toISOString());
  return { bucket_start, bucket_end, base_model, session_id, project_id, estimated_cost_usd, event_info };
}

const EVENTS = [
  hour(1, "small", ONE, "kitchen", 0.25, { type: "training", token_count: 1_234_567 }),
  hour(2, "small", ONE, "kitchen", 0.004, { type: "sampling_sample", token_count: 20 }),
  hour(30, "large", OTHER, "kitchen", 1_999.5, { type: "training", token_count: 7 }),
  hour(30, "large", OTHER, "garden", 0.5, { type: "sampling_prefill", cached: true, token_count: 900 }),
  // A rate that is not known yet, and a kind that this version does not know.
  hour(3, "new", OTHER, "garden", null, { type: "sampling_sample", token_count: 3 }),
  hour(4, null, null, null, 0.001, { type: "moonlight" }),
];

const STORED = [
  { project_id: "garden", user_name: "Ada", checkpoint_count: 1, size_bytes: 500, size_gigabytes: 5e-7 },
  {
    project_id: "kitchen",
    user_email: "bob@example.org",
    checkpoint_count: 1_200,
    size_bytes: 34_000_000_000,
    size_gigabytes: 34,
    estimated_monthly_cost_usd: 10.54,
  },
];

/** The cells of each row of a table. */
const cells = (page, row) =>
  byTestId(page, row).evaluateAll((rows) =>
    rows.map((row) => [...row.cells].map((cell) => cell.innerText.trim().replace(/\s+/g, " "))),
  );

async function shows(page, row, wanted) {
  await page.waitForFunction(
    ([row, first]) => document.querySelector(`[data-testid="${row}"]`)?.cells[0].innerText.startsWith(first),
    [row, wanted[0][0].split(" ")[0]],
  );
  assert.deepEqual(await cells(page, row), wanted);
}

test("what is used and stored are the service's numbers, summed up as is asked for", async (t) => {
  const behind = await Retinker.up(t);
  const proxy = await Misbehaving.start(t, behind.serviceUrl);
  const asked = [];
  let refuses = false;
  const through = new Date(Math.floor(Date.now() / HOUR) * HOUR - 48 * HOUR);
  proxy.answers(/^GET \/api\/v1\/billing\/usage\/events$/, (query) => {
    const [from, to] = ["starting_on", "ending_before"].map((name) => Date.parse(query.get(name)));
    if (refuses) return undefined;
    asked.push([from, to]);
    const data = EVENTS.filter((event) => Date.parse(event.bucket_start) >= from && Date.parse(event.bucket_end) <= to);
    return { data, sessions: {}, cost_data_through: through.toISOString() };
  });
  proxy.answers(/^GET \/api\/v1\/billing\/usage\/checkpoints\/current$/, () => ({ data: STORED }));
  const retinker = await proxy.console(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await page.getByRole("link", { name: "Usage" }).click();

  await t.test("by base model, the dearest first, and what has no cost without one", async () => {
    await shows(page, "used-row", [
      ["large", "7", "900", "0", "$2,000.00"],
      ["small", "1,234,567", "0", "20", "$0.25"],
      ["not told", "0", "0", "0", "< $0.01"],
      ["new", "0", "0", "3", "–"],
    ]);
    assert.equal(await page.locator("#used-title").innerText(), "Used $2,000.26", "of all of them, to the cent");
    assert.equal(await byTestId(page, "no-billing").count(), 0);
    const [[from, to]] = asked;
    assert.equal(to - from, 7 * 24 * HOUR);
    assert.deepEqual([from % HOUR, to % HOUR], [0, 0], "services refuse what are no full hours");
    await picture(page, "usage-billed");
  });

  await t.test("until when costs come from invoices is told", async () => {
    const told = page.locator("section", { has: page.locator("#used-title") }).locator("p.quiet").last();
    const date = await page.evaluate((at) => {
      const two = (number) => String(number).padStart(2, "0");
      const then = new Date(at);
      return `${then.getFullYear()}-${two(then.getMonth() + 1)}-${two(then.getDate())} ${two(then.getHours())}:00:00`;
    }, through.getTime());
    assert.match(await told.innerText(), new RegExp(`estimates before credits, from invoices until ${date}`));
  });

  await t.test("what is stored by project and owner, the largest first", async () => {
    await shows(page, "storage-row", [
      ["kitchen bob@example.org", "1,200", "34 GB", "$10.54"],
      ["garden Ada", "1", "500 B", "–"],
    ]);
    assert.equal(await byTestId(page, "storage-total").innerText(), "34 GB in 1,201 checkpoints");
    assert.doesNotMatch(await page.locator("main").innerText(), /Summed up from the sessions/);
    const link = byTestId(page, "storage-row").first().getByRole("link", { name: "kitchen" });
    assert.equal(await link.getAttribute("href"), "/sessions?project=kitchen");
  });

  await t.test("by session, project and day; the address holds it", async () => {
    await byTestId(page, "usage-by").selectOption({ label: "Session" });
    await page.waitForURL(/\/usage\?by=session&days=7$/);
    await page.locator(`[data-testid="used-row"] a[href="/sessions/${ONE}"]`).waitFor();
    assert.deepEqual((await cells(page, "used-row")).map(([, ...numbers]) => numbers), [
      ["7", "900", "3", "$2,000.00"],
      ["1,234,567", "0", "20", "$0.25"],
      ["0", "0", "0", "< $0.01"],
    ]);
    await byTestId(page, "usage-by").selectOption({ label: "Project" });
    await page.locator('[data-testid="used-row"]', { hasText: "garden" }).waitFor();
    assert.deepEqual(await cells(page, "used-row"), [
      ["kitchen", "1,234,574", "0", "20", "$1,999.75"],
      ["garden", "0", "900", "3", "$0.50"],
      ["not told", "0", "0", "0", "< $0.01"],
    ]);
    await byTestId(page, "usage-by").selectOption({ label: "Day" });
    await page.waitForURL(/by=day/);
    const days = [...new Set(EVENTS.map((event) => event.bucket_start.slice(0, 10)))].sort().reverse();
    const trained = (day) =>
      EVENTS.filter((event) => event.bucket_start.startsWith(day) && event.event_info.type === "training")
        .reduce((sum, event) => sum + event.event_info.token_count, 0);
    await page.locator('[data-testid="used-row"]', { hasText: days[0] }).waitFor();
    assert.deepEqual(
      (await cells(page, "used-row")).map(([day, tokens]) => [day, tokens]),
      days.map((day) => [day, trained(day).toLocaleString("en-US")]),
    );
    await page.reload();
    await page.locator('[data-testid="used-row"]', { hasText: days[0] }).waitFor();
    assert.equal(await byTestId(page, "usage-by").inputValue(), "day");
  });

  await t.test("of the last day alone, and of the longest time that services tell", async () => {
    await page.goto(new URL("/usage", page.url()).href);
    await byTestId(page, "usage-days").selectOption({ label: "1 day" });
    await shows(page, "used-row", [
      ["small", "1,234,567", "0", "20", "$0.25"],
      ["not told", "0", "0", "0", "< $0.01"],
      ["new", "0", "0", "3", "–"],
    ]);
    assert.equal(await page.locator("#used-title").innerText(), "Used $0.26");
    await byTestId(page, "usage-days").selectOption({ label: "14 days" });
    await page.locator('[data-testid="used-row"]', { hasText: "large" }).waitFor();
    const [from, to] = asked.at(-1);
    assert.equal(to - from, 14 * 24 * HOUR);
  });

  await t.test("a bill that cannot be read is no empty bill, and what is stored is told beside it", async () => {
    refuses = true;
    await byTestId(page, "usage-days").selectOption({ label: "7 days" });
    await page.getByText("It could not be read. This does not mean that nothing was used.").waitFor();
    await page.locator('[data-testid="banner-problem"][data-code="service_unauthorized"]').waitFor();
    assert.equal(await byTestId(page, "used-row").count(), 0);
    assert.equal(await page.locator("#used-title").innerText(), "Used", "no sum of what is not known");
    assert.equal(await byTestId(page, "storage-row").count(), 2);
    assert.equal(await byTestId(page, "no-billing").count(), 0, "it does bill");
  });
  assert.deepEqual(page.problems, []);
});

test("what deleting a checkpoint saves is told, by what storage costs", async (t) => {
  const behind = await Retinker.up(t);
  const service = new Service(behind.serviceUrl);
  const run = await service.run(await service.session(), 0, "sound");
  const { path } = await service.call("save_weights", { model_id: run, seq_id: 1, path: "saved" });
  const { checkpoints: [{ size_bytes }] } = await behind.service("checkpoints?limit=10");
  const proxy = await Misbehaving.start(t, behind.serviceUrl);
  proxy.answers(/^GET \/api\/v1\/billing\/usage\/checkpoints\/current$/, () => ({
    data: STORED, effective_rate_usd_per_gigabyte_month: 2.5 / (size_bytes / 1e9),
  }));
  const retinker = await proxy.console(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await page.goto(new URL("/checkpoints", retinker.consoleUrl).href);
  await openCheckpoint(page, path);
  await byTestId(page, "delete").click();
  await byTestId(page, "preview-told").waitFor();
  assert.match(await byTestId(page, "preview-told").innerText(), /^1 checkpoint goes, which frees [\d.]+ [KM]B and saves \$2\.50 a month\.$/);
  assert.deepEqual(page.problems, []);
});
