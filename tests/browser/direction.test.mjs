// Names, labels and sentences of a service may hold marks that turn the direction of the text and never turn it back:
// what stands beside them on a page, in its title and in its tooltips stays where it is.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, openBrowser, openPage, picture, runRow } from "./support/browser.mjs";
import { faulty, restoreShown } from "./support/lost.mjs";
import { until } from "./support/retinker.mjs";
import { Service, batchOf } from "./support/service.mjs";

/** Turns all that follows it, twice. */
const TURNED = "\u202eadorned\u2067";

const { batch: BATCH } = batchOf("To be, or not to be");

/** A checkpoint cannot be called so on our service, but may be on others: what the host tells of these has the marks. */
const PLAIN = /(?<="(?:checkpoint_id|tinker_path|checkpoint|model_path)":"[^"]*)ornate\d/g;
const MARKED = /\u202e(ornate\d)\u2067/g;

/** Puts the marks into the names of checkpoints that the host answers, and takes them out of what it is asked. */
async function adorn(context) {
  await context.route(/\/retinker\/v1\/(?!events)/, async (route) => {
    const request = route.request();
    const url = encodeURI(decodeURI(request.url()).replaceAll(MARKED, "$1"));
    const postData = request.postData()?.replaceAll(MARKED, "$1");
    try {
      const response = await route.fetch({ url, postData });
      const body = (await response.text()).replaceAll(PLAIN, "\u202e$&\u2067");
      await route.fulfill({ response, body });
    } catch {
      // The page has gone on, and does not want it any more.
      await route.abort().catch(() => {});
    }
  });
}

/**
 * How many of the odd texts are in sight, with their marks or without: a sentence of ours leaves them out. And what
 * stands after one with its marks without being kept apart from it: in the same text, or in the same line, unless the odd
 * one is in a box or an isolation of its own.
 */
function look() {
  const NAME = /adorned|ornate\d/;
  const ODD = /\u202e(?:adorned|ornate\d)\u2067/;
  /** The letters and numbers of a text that an odd one before them has turned: the end of a sentence is its own. */
  const turnedIn = (text) => {
    const open = [];
    let turned = "";
    let isAfter = false;
    let rest = text;
    while (rest) {
      const odd = rest.match(ODD);
      if (odd?.index === 0) {
        open.push("e", "i");
        isAfter = true;
        rest = rest.slice(odd[0].length);
        continue;
      }
      const letter = rest[0];
      if ("\u202a\u202b\u202d\u202e".includes(letter)) open.push("e");
      else if ("\u2066\u2067\u2068".includes(letter)) open.push("i");
      else if (letter === "\u202c" && open.at(-1) === "e") open.pop();
      else if (letter === "\u2069" && open.includes("i")) open.length = open.lastIndexOf("i");
      else if (isAfter && open.length > 0 && /[\p{L}\p{N}]/u.test(letter)) turned += letter;
      rest = rest.slice(1);
    }
    return { turned, stays: isAfter && open.length > 0 };
  };
  const display = (element) => getComputedStyle(element).display;
  const isInline = (element) => ["inline", "contents"].includes(display(element));
  const isAlone = (element) =>
    !isInline(element) || ["isolate", "isolate-override", "plaintext"].includes(getComputedStyle(element).unicodeBidi);
  const isSeen = (element) => element.checkVisibility({ visibilityProperty: true });
  const BLOCK = /^(block|flex|grid|table|list-item|-webkit-box|flow-root)/;
  const endsLine = (node) =>
    node.nodeType === Node.ELEMENT_NODE && (node.tagName === "BR" || BLOCK.test(display(node)));
  /** What can be seen of a node: a text, or what stands in an element that takes room. */
  const seenOf = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return node.data.trim();
    const takesRoom = node.nodeType === Node.ELEMENT_NODE && isSeen(node) && node.getBoundingClientRect().width > 1;
    return takesRoom ? (node.innerText?.trim() || told(node)) : "";
  };
  const told = (element) => `<${element.tagName.toLowerCase()} class="${element.getAttribute("class") ?? ""}">`;
  const beside = [];
  let [found, marked] = [0, 0];
  const shown = document.querySelector("dialog[open]") ?? document.body;
  const walker = document.createTreeWalker(shown, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!NAME.test(node.data) || parent.closest("script, style, datalist") || !isSeen(parent)) continue;
    found += 1;
    if (!ODD.test(node.data)) continue;
    marked += 1;
    const { turned, stays } = turnedIn(node.data);
    if (turned) beside.push(`in ${told(parent)}: ${node.data} turns ${turned}`);
    // A text of a row or grid is a box of its own.
    if (!stays || /flex|grid/.test(display(parent))) continue;
    let at = node;
    while (at) {
      // On to what follows in the line, out of what is not kept apart.
      while (!at.nextSibling) {
        at = at.parentNode;
        if (isAlone(at)) break;
      }
      if (at.nodeType === Node.ELEMENT_NODE && isAlone(at) && at.contains(node)) break;
      at = at.nextSibling;
      if (!at || endsLine(at)) break;
      const seen = seenOf(at);
      if (seen) {
        beside.push(`after ${told(parent)} ${node.data}: ${seen.slice(0, 60)}`);
        break;
      }
    }
  }
  const turns = (element) => isSeen(element) && turnedIn(element.title).turned;
  const hints = [...shown.querySelectorAll("[title]")].filter(turns);
  return {
    found,
    marked,
    beside,
    hints: hints.map((element) => `${told(element)}: ${element.title}`),
    title: turnedIn(document.title).turned,
  };
}

/** Fails with all that an odd text turns on this page; `least` of them have to be there, and one at least with its marks. */
async function assertStays(t, page, what, least = 1) {
  let seen;
  const isThere = async () => {
    seen = await page.evaluate(look);
    return seen.found >= least && seen.marked > 0;
  };
  await until(`the odd texts of ${what}`, isThere, 30)
    .catch(() => assert.fail(`${what} shows ${seen.found} odd texts, of ${least}, ${seen.marked} with their marks`));
  await picture(page, `direction-${what}`.replaceAll(/\W+/g, "-"));
  // What is refused is told once, not for each row.
  const once = (all) => [...new Set(all)];
  await t.test(`${what}: the page`, () => assert.deepEqual(once(seen.beside), []));
  await t.test(`${what}: tooltips`, () => assert.deepEqual(once(seen.hints), []));
  await t.test(`${what}: the title`, () => assert.equal(seen.title, ""));
}

/** A service whose every text is odd: two runs that were lost together, one that was restored from, a sound one. */
async function odd(t) {
  const { retinker, fault } = await faulty(t);
  const service = new Service(retinker.serviceUrl);
  const labels = { team: TURNED, [TURNED]: TURNED };
  const session = await service.session({ display_name: TURNED, user_metadata: labels, project_id: TURNED });
  const other = await service.session({ display_name: TURNED, user_metadata: labels, project_id: TURNED });
  const ids = [];
  for (const number of [0, 1, 2, 3]) {
    const { model_id: id } = await service.call("create_model", {
      session_id: session,
      model_seq_id: number,
      base_model: "retinker/nano-llama",
      lora_config: { rank: 4, seed: 7 },
      user_metadata: { name: TURNED, ...labels },
    });
    let seq_id = 0;
    const ask = (path, body) => service.call(path, { model_id: id, seq_id: ++seq_id, ...body });
    await ask("forward_backward", { forward_backward_input: { data: [BATCH], loss_fn: "cross_entropy" } });
    await ask("optim_step", { adam_params: { learning_rate: 0.01 } });
    // Two each, so that there is something to choose from.
    for (const path of ["ornate1", "ornate2"]) await ask("save_weights", { path, user_metadata: labels });
    ids.push(id);
  }
  const [sound, ...victims] = ids;
  const saved = await service.call("save_weights_for_sampler", { model_id: sound, seq_id: 5, path: "ornate3" });
  await service.post("create_sampling_session", {
    session_id: session, sampling_session_seq_id: 0, model_path: saved.path,
  });
  for (const run_id of victims) await fault("poison", { run_id, reason: TURNED });
  await service.post(`sessions/${other}/finish`, { reason: { type: "errored" }, detail: TURNED });
  return { retinker, session, other, sound, victims };
}

test("what stands beside a text that turns the direction stays where it is", async (t) => {
  const { retinker, session, other, sound, victims: [lost, restored, last] } = await odd(t);
  const browser = await openBrowser(t);
  const page = await openPage(browser, retinker.consoleUrl, { viewport: { width: 1600, height: 1000 } });
  await adorn(page.context());
  const open = (path) => page.goto(new URL(path, retinker.consoleUrl).href);
  const ofRun = (id) => `/runs/${encodeURIComponent(id)}`;
  const shows = (what, least) => assertStays(t, page, what, least);
  const unfold = (within) =>
    page.locator(`${within} details`).evaluateAll((all) => all.forEach((one) => (one.open = true)));
  const escape = async () => {
    await page.keyboard.press("Escape");
    await page.locator("dialog[open]").waitFor({ state: "detached" });
  };

  await open("/");
  for (const id of [lost, restored, last]) await runRow(page, id, "poisoned").waitFor();
  await byTestId(page, "incident-banner").waitFor();
  await byTestId(page, "columns-menu").click();
  for (const column of ["column-labels", "column-owner"]) await byTestId(page, column).check();
  await page.keyboard.press("Escape");
  await shows("the list of runs, with its incident", 8);

  await page.keyboard.press("Control+k");
  await byTestId(page, "palette-text").fill("adorned");
  await byTestId(page, "palette-option").filter({ hasText: "adorned" }).first().waitFor();
  await shows("the palette");
  await escape();

  await open(ofRun(lost));
  await byTestId(page, "evidence").waitFor();
  await byTestId(page, "timeline-entry").first().waitFor();
  await byTestId(page, "run-session").waitFor();
  await shows("a lost run", 10);
  await byTestId(page, "restore-button").click();
  await byTestId(page, "plan-summary").waitFor();
  await shows("the plan of a restore", 3);
  await escape();

  await open(ofRun(restored));
  await byTestId(page, "restore-button").waitFor();
  const successor = await restoreShown(page);
  await byTestId(page, "lineage").waitFor();
  await unfold("main");
  await shows("a restored run, with its lineage", 8);
  await open(ofRun(restored));
  await byTestId(page, "restored-to-link").waitFor();
  await byTestId(page, "lineage").waitFor();
  await unfold("main");
  await shows("a run that was restored, with its lineage", 8);

  await open(`/compare?${[sound, lost, successor].map((id) => `run=${encodeURIComponent(id)}`).join("&")}`);
  await byTestId(page, "compare-differences").waitFor();
  await byTestId(page, "curves-values").locator("summary").click();
  await byTestId(page, "curves-table").nth(1).waitFor();
  await shows("runs compared", 6);

  await open("/checkpoints");
  await byTestId(page, "checkpoint-item").nth(8).waitFor();
  await shows("checkpoints", 16);
  await page.locator(`[data-testid="checkpoint-item"][data-path*="${lost}"] [data-testid="more"]`).first().click();
  await byTestId(page, "publish").waitFor();
  await shows("a checkpoint", 3);
  await byTestId(page, "delete").click();
  await byTestId(page, "preview-told").waitFor();
  await shows("what deleting would do", 2);
  await escape();

  await open("/?sort=activity");
  await runRow(page, lost, "poisoned").waitFor();
  await byTestId(page, "runs-scroller").focus();
  await page.keyboard.press("Control+a");
  await byTestId(page, "restore-selected").click();
  await page.locator('[data-testid="confirm-bulk"]:not([disabled])').waitFor();
  await unfold("dialog[open]");
  await shows("the plans of many restores", 5);
  await byTestId(page, "confirm-bulk").click();
  await byTestId(page, "bulk-progress").getByText("Restored 2 of 2").waitFor();
  await shows("many restores", 2);
  await escape();

  await open("/sessions");
  await byTestId(page, "session-row").nth(1).waitFor();
  await page.locator('[data-testid="session-row"] .c-runs a').first().waitFor();
  await shows("sessions", 6);
  await open(`/sessions/${other}`);
  await byTestId(page, "session-labels").waitFor();
  await shows("a session that has ended", 4);
  await open(`/sessions/${session}`);
  await byTestId(page, "session-runs").waitFor();
  await byTestId(page, "assign-project").click();
  await byTestId(page, "project-id").fill("kitchen");
  await byTestId(page, "confirm").click();
  await byTestId(page, "assign-undo").waitFor();
  await shows("a session with its way back to a project", 6);
  await byTestId(page, "assign-undo").click();
  await byTestId(page, "session-facts").getByRole("link", { name: "adorned" }).waitFor();
  for (const [name, there] of [["projects", "project-row"], ["samplers", "samplers-total"], ["usage", "storage-row"]]) {
    await open(`/${name}`);
    await byTestId(page, there).first().waitFor();
    await shows(name);
  }

  await open("/activity");
  await byTestId(page, "restore-row").first().waitFor();
  await byTestId(page, "act").first().waitFor();
  await unfold("main");
  await shows("the activity", 5);
  await page.context().unrouteAll({ behavior: "ignoreErrors" });
  assert.deepEqual(page.problems, []);
});
