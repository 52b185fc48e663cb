// The page of one run: its story, its family, its curves; and several runs side by side.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, openBrowser, openConsole, openPage, openRun, picture } from "./support/browser.mjs";
import { restoreShown } from "./support/lost.mjs";
import { Retinker, lastingUp, until } from "./support/retinker.mjs";
import { Training } from "./support/train.mjs";

/** What the service itself says of a run's steps. */
async function pointsOf(retinker, runId) {
  const address = `${retinker.serviceUrl}/retinker/local/v1/runs/${runId}/metrics?limit=10000`;
  const response = await fetch(address, { headers: { "x-api-key": "tml-test" } });
  assert.equal(response.status, 200);
  return (await response.json()).points;
}

/** The rows of the table behind the curves: step, and every digit of each number. */
async function tableOf(page, runId) {
  const table = page.locator(`[data-testid="curves-table"][data-run-id="${runId}"]`);
  await table.waitFor();
  return table.evaluate((table) =>
    [...table.tBodies[0].rows].map((row) => ({
      step: Number(row.cells[0].innerText.replaceAll(",", "")),
      ...Object.fromEntries([...row.cells].slice(1).map((cell) => [cell.dataset.metric, Number(cell.title)])),
    })),
  );
}

const metrics = ({ step, loss, loss_per_token, learning_rate, grad_norm }) => ({
  step, loss_per_token, loss, learning_rate, grad_norm,
});

const noWider = (page) =>
  page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth);

test("a run's curves, story and family over three generations", async (t) => {
  const args = await lastingUp(t);
  let retinker = await Retinker.start(t, args);
  const train = (...more) => new Training(t, retinker.serviceUrl, ["--lr", "0.001", "--seed", "3", ...more]);
  const create = (name, rank, ...more) =>
    train("--create", "retinker/nano-llama", "--rank", rank, "--name", name, ...more);

  const sound = create("sound", "8", "--steps", "12", "--save-every", "6");
  await sound.finish();
  const first = create("<b>first</b> \u202Erun", "4", "--steps", "2000", "--save-every", "4");
  await first.steps(10);
  await first.pause();
  const ids = [first.attachment.model_id];
  const soundId = sound.attachment.model_id;

  const browser = await openBrowser(t);
  const page = await openPage(browser, retinker.consoleUrl);
  const sized = async (width, name) => {
    await page.setViewportSize({ width, height: 860 });
    await picture(page, name);
    assert.equal(await noWider(page), true, `${name} at ${width} px`);
  };

  await t.test("curves are the service's numbers", async () => {
    await openRun(page, soundId, "healthy");
    await page.locator('[data-testid="curves"][data-whole="true"]').waitFor();
    await byTestId(page, "curves-values").locator("summary").click();
    const points = await pointsOf(retinker, soundId);
    assert.equal(points.length, 12);
    const rows = await tableOf(page, soundId);
    assert.deepEqual(rows.map((row) => row.step), points.map((point) => point.step));
    points.map(metrics).forEach((point, at) => {
      for (const [metric, value] of Object.entries(point)) {
        // JSON is read to the sixteenth digit on the way.
        assert.ok(Math.abs(rows[at][metric] - value) <= Math.abs(value) * 1e-15, `${metric} of step ${point.step}`);
      }
    });
    await byTestId(page, "curves-values").locator("summary").click();
    await picture(page, "run");
  });

  const plot = page.locator("#chart-main");
  const line = plot.locator("path.line").first();
  const readout = byTestId(page, "curves-readout");

  await t.test("the keyboard moves from step to step and zooms", async () => {
    assert.match(await readout.innerText(), /step 12 /, "the last one, where none is looked at");
    await plot.focus();
    await page.keyboard.press("Home");
    await page.waitForFunction(() => /step 1 /.test(document.querySelector('[data-testid="curves-readout"]').innerText));
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    await page.waitForFunction(() => /step 3 /.test(document.querySelector('[data-testid="curves-readout"]').innerText));
    const whole = await line.getAttribute("d");
    await page.keyboard.press("+");
    await byTestId(page, "curves-all").waitFor();
    assert.notEqual(await line.getAttribute("d"), whole);
    await page.keyboard.press("0");
    await byTestId(page, "curves-all").waitFor({ state: "detached" });
    assert.equal(await line.getAttribute("d"), whole);
  });

  await t.test("dragging zooms, and so does the table", async () => {
    const box = await plot.boundingBox();
    await page.mouse.move(box.x + box.width * 0.5, box.y + 80);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.8, box.y + 90, { steps: 5 });
    await page.mouse.up();
    await byTestId(page, "curves-all").waitFor();
    await byTestId(page, "curves-values").locator("summary").click();
    const rows = await tableOf(page, soundId);
    assert.ok(rows.length >= 2 && rows.length < 8 && rows[0].step > 4, JSON.stringify(rows.map((row) => row.step)));
    await byTestId(page, "curves-all").click();
    await byTestId(page, "curves-values").locator("summary").click();
  });

  await t.test("smoothing is an average without a pull to zero, and a logarithm bends the axis", async () => {
    const slider = byTestId(page, "curves-smoothing");
    await slider.fill("60");
    const points = await pointsOf(retinker, soundId);
    let [average, left] = [0, 1];
    for (const { loss_per_token: loss } of points) [average, left] = [average * 0.6 + loss * 0.4, left * 0.6];
    const told = await readout.innerText();
    const smoothed = Number(told.match(/smoothed ([\d.]+)/)[1]);
    assert.ok(Math.abs(smoothed - average / (1 - left)) < 1e-4, told);
    assert.equal(await plot.locator("path.line.faint").count(), 1, "the line itself stays in sight");
    const labels = () => plot.locator(".grid text").allTextContents();
    const before = await labels();
    await byTestId(page, "curves-log").check();
    assert.deepEqual((await labels()).slice(0, 3), before.slice(0, 3), "steps are as they were");
    await slider.fill("0");
    await byTestId(page, "curves-log").uncheck();
    await byTestId(page, "curves-loss").selectOption("loss");
    await page.locator('[data-metric="loss"] #chart-main').waitFor();
  });

  await t.test("a run that is trained on grows its curve by itself", async () => {
    await openRun(page, ids[0], "healthy");
    await page.locator('[data-testid="curves"][data-whole="true"]').waitFor();
    const before = await readout.innerText();
    first.child.kill("SIGCONT");
    await page.waitForFunction(
      (before) => document.querySelector('[data-testid="curves-readout"]').innerText !== before,
      before,
    );
    const reached = first.losses.length + 2;
    await first.steps(reached);
    await first.pause();
    await until("the last step", async () => {
      const points = await pointsOf(retinker, ids[0]);
      return (await readout.innerText()).includes(`step ${points.at(-1).step} `);
    });
  });

  await t.test("a poisoning and a restore are told in the story, three generations in the family", async () => {
    let training = first;
    for (const generation of [1, 2]) {
      await page.goto("about:blank");
      await retinker.kill("SIGKILL");
      training.stop();
      retinker = await Retinker.start(t, args);
      await openConsole(page, retinker.consoleUrl);
      await openRun(page, ids.at(-1), "poisoned");
      const lost = page.locator('[data-testid="timeline-entry"][data-kind="lost"]');
      await lost.first().waitFor();
      assert.match(await lost.first().innerText(), /lost/);
      await page.locator('[data-testid="evidence"] [data-kind="lost"]').waitFor();
      if (generation === 1) await picture(page, "run-poisoned");
      const old = ids.at(-1);
      ids.push(await restoreShown(page));
      const restored = page.locator('[data-testid="timeline-entry"][data-kind="restored"]');
      await restored.first().waitFor();
      assert.match(await restored.first().innerText(), /Restored from/);
      await restored.first().locator("summary").click();
      assert.ok((await restored.first().locator("details li").count()) >= 4, "with its steps");
      const { body } = await retinker.host(`runs/${ids.at(-1)}`);
      assert.equal(body.lineage.at(-1).parent, old);
      const { session_id: session, model_id: model, next_seq_id: next } = body.restored_by.attachment;
      training = train(
        "--attach", session, model, `${next}`, "--steps", "2000", "--save-every", "3",
      );
      await training.steps(5);
      await training.pause();
    }
    const family = byTestId(page, "lineage").locator("li");
    assert.equal(await family.count(), 3);
    const told = await family.evaluateAll((items) => items.map((item) => item.dataset.runId));
    assert.deepEqual(told, ids);
    assert.equal(await byTestId(page, "lineage-graph").locator(".knot").count(), 3);
    // The curve goes on from those of the runs before it, and each restore is marked. A line that is upright has no
    // width, so nothing can be waited to be visible.
    const marks = plot.locator('[data-testid="restored-mark"]');
    await marks.nth(1).waitFor({ state: "attached" });
    assert.equal(await marks.count(), 2);
    await picture(page, "run-restored");
    await family.nth(0).locator("a").click();
    await page.waitForURL(new RegExp(encodeURIComponent(ids[0])));
    await page.locator('[data-testid="lineage"] li[aria-current]').first().waitFor();
    assert.match(await page.locator("#page-title").innerText(), /<b>first<\/b>/, "a name is no markup");
    training.stop();
  });

  await t.test("a restored run is compared with the one it replaces, and any others by the address", async () => {
    await page.goto(new URL(`/runs/${encodeURIComponent(ids[2])}`, retinker.consoleUrl).href);
    await byTestId(page, "compare-link").click();
    await page.locator('[data-testid="curves"][data-whole="true"]').waitFor();
    assert.equal(await page.title(), "Compare runs · retinker");
    const address = new URL(page.url());
    assert.deepEqual(address.searchParams.getAll("run"), [ids[1], ids[2]]);
    await page.goto(`${address.origin}/compare?${[soundId, ...ids].map((id) => `run=${encodeURIComponent(id)}`).join("&")}`);
    await page.locator('[data-testid="curves"][data-whole="true"]').waitFor();
    const legend = byTestId(page, "compare-legend").locator("li");
    assert.equal(await legend.count(), 4);
    await page.waitForFunction(() => document.querySelectorAll("#chart-main path.line:not([d=''])").length === 4);
    const dashes = await plot.locator("path.line:not([d=''])").evaluateAll((all) => all.map((one) => one.getAttribute("stroke-dasharray")));
    assert.equal(new Set(dashes).size, 4, "told apart without colour");
    const differences = await byTestId(page, "compare-differences").innerText();
    assert.match(differences, /Adapter[\s\S]*rank 8[\s\S]*rank 4/);
    assert.doesNotMatch(differences, /Base model/, "what is the same is left out");
    assert.equal(await readout.locator("li").count(), 4);
    await sized(1280, "compare");
    await sized(380, "compare-narrow");
    await page.setViewportSize({ width: 1280, height: 860 });
    await byTestId(page, "compare-legend").getByRole("link", { name: /^Leave out/ }).first().click();
    await page.waitForFunction(() => document.querySelectorAll('[data-testid="compare-legend"] li').length === 3);
  });

  await t.test("the page is whole on a narrow screen, in the dark and on paper", async () => {
    await page.goto(new URL(`/runs/${encodeURIComponent(ids[2])}`, retinker.consoleUrl).href);
    await page.locator('[data-testid="curves"][data-whole="true"]').waitFor();
    await sized(380, "run-narrow");
    await page.setViewportSize({ width: 1280, height: 860 });
    await page.emulateMedia({ colorScheme: "dark" });
    await picture(page, "run-dark");
    await page.emulateMedia({ media: "print", colorScheme: "light" });
    await picture(page, "run-print");
    assert.equal(await byTestId(page, "curves-smoothing").isVisible(), false, "nothing on paper that can only be clicked");
    assert.equal(await page.locator(".top").isVisible(), false);
    await page.emulateMedia({ media: "screen" });
  });
  assert.deepEqual(page.problems, []);
});
