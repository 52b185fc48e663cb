// A long story of a run: folded on the page, whole on paper; and runs side by side.
import assert from "node:assert/strict";
import { test } from "node:test";

import { assertFits } from "./support/accessible.mjs";
import { byTestId, holdBack, openRun, picture } from "./support/browser.mjs";
import { assertSomewhere } from "./support/keyboard.mjs";
import { faulty, pageOf, restoreOnPage } from "./support/lost.mjs";
import { until } from "./support/retinker.mjs";
import { Training } from "./support/train.mjs";

/** A run that was saved after each of so many steps. */
async function trained(t, retinker, name, steps, ...more) {
  const training = Training.create(t, retinker.serviceUrl, { name }, "--steps", `${steps}`, ...more);
  await training.finish();
  return training.attachment.model_id;
}

const entries = (page) => byTestId(page, "timeline-entry");
const happened = (page, kind) => page.locator(`[data-testid="timeline-entry"][data-kind="${kind}"]`);
/** What of the story is to be seen, and all of it that is there. */
const seen = (page) =>
  entries(page).evaluateAll((lines) => lines.filter((line) => line.checkVisibility()).map((line) => line.innerText));

test("a story is folded where it is long, and whole when it is asked for and on paper", async (t) => {
  const { retinker, fault } = await faulty(t);
  const victim = await trained(t, retinker, "of many steps", 12, "--save-every", "1");
  await fault("poison", { run_id: victim, reason: "a machine died" });
  const page = await pageOf(t, retinker);
  await restoreOnPage(page, victim);
  const { checkpoints } = await retinker.service(`training_runs/${victim}/checkpoints`);
  assert.equal(checkpoints.length, 12);
  const names = checkpoints.map((one) => one.checkpoint_id.split("/").at(-1));
  const { body } = await retinker.host(`runs/${victim}`);
  const steps = body.restore.events.map((event) => event.message);
  assert.ok(steps.length >= 4, JSON.stringify(steps));

  /** Fails unless the whole story is to be seen. */
  const whole = async () => {
    const told = await seen(page);
    for (const name of names) assert.equal(told.filter((line) => line.includes(`Saved ${name}.`)).length, 1, name);
    for (const kind of ["made", "trained", "lost", "restored"]) {
      assert.equal(await happened(page, kind).first().isVisible(), true, kind);
    }
    assert.equal(told.length, await entries(page).count());
  };

  await openRun(page, victim, "recovered");
  await happened(page, "restored").waitFor();
  await happened(page, "trained").waitFor({ state: "attached" });
  const count = await entries(page).count();
  assert.ok(count > 12, `${count} things happened`);

  await t.test("on the page the newest are shown", async () => {
    const told = await seen(page);
    assert.equal(told.length, 8);
    assert.match(told[0], /^Restored as /);
    assert.equal(await byTestId(page, "timeline-all").innerText(), `Show all ${count}`);
  });

  await t.test("on paper all of it, and no button for it", async () => {
    await page.emulateMedia({ media: "print" });
    await picture(page, "run-story-print");
    await whole();
    assert.equal(await byTestId(page, "timeline-all").isVisible(), false);
    // When it was is told to the second, as nobody can point at paper.
    const time = entries(page).first().locator(".story-when time");
    const after = await time.evaluate((time) => getComputedStyle(time, "::after").content);
    assert.match(after, /\(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC/);
  });

  await t.test("and each step of the restore, which nobody can unfold on paper", async () => {
    const told = await entries(page).first().locator("details li").evaluateAll((lines) =>
      lines.filter((line) => line.checkVisibility() && line.getBoundingClientRect().height > 0).map((line) => line.innerText),
    );
    for (const step of steps) assert.ok(told.some((line) => line.includes(step)), `not on paper: ${step}`);
  });
  await page.emulateMedia({ media: "screen" });

  await t.test("when it is asked for all of it is shown, by the keyboard too", async () => {
    await byTestId(page, "timeline-all").focus();
    await page.keyboard.press("Enter");
    await byTestId(page, "timeline-all").waitFor({ state: "detached" });
    await whole();
    await picture(page, "run-story-all");
    // It stays so while the page is read again.
    await page.keyboard.press("Control+k");
    await byTestId(page, "palette-text").fill("refresh now");
    await page.keyboard.press("Enter");
    await byTestId(page, "palette-text").waitFor({ state: "hidden" });
    await whole();
  });

  await t.test("the keyboard is on something when all is shown", async () => {
    await page.reload();
    await byTestId(page, "timeline-all").focus();
    await page.keyboard.press("Enter");
    await byTestId(page, "timeline-all").waitFor({ state: "detached" });
    await assertSomewhere(page);
  });

  await t.test("the list of the checkpoints is on paper as well", async () => {
    await page.emulateMedia({ media: "print" });
    assert.equal(await byTestId(page, "checkpoint-row").count(), 12);
    for (const line of await byTestId(page, "checkpoint-row").all()) assert.equal(await line.isVisible(), true);
    assert.equal(await byTestId(page, "verdict").isVisible(), true);
    assert.equal(await byTestId(page, "evidence").isVisible(), true);
    await assertFits(page, "the run on paper");
    await page.emulateMedia({ media: "screen" });
  });
  assert.deepEqual(page.problems, []);
});

test("of runs side by side one is left out, and how they are drawn is chosen for all of them", async (t) => {
  const { retinker } = await faulty(t);
  const ids = [];
  const runs = [["short", 3], ["long", 9], ["twin", 6]];
  for (const [name, steps] of runs) ids.push(await trained(t, retinker, name, steps));
  const page = await pageOf(t, retinker);
  await page.locator('[data-testid="freshness"][data-state="live"]').waitFor();
  const address = `/compare?${ids.map((id) => `run=${encodeURIComponent(id)}`).join("&")}`;
  await page.goto(new URL(address, retinker.consoleUrl).href);
  await page.locator('[data-testid="curves"][data-whole="true"]').waitFor();
  const lines = () =>
    page.locator("#chart-main path.line:not([d=''])").evaluateAll((all) => all.map((line) => line.getAttribute("d")));
  const legend = byTestId(page, "compare-legend");
  const compared = () => legend.locator("li").evaluateAll((all) => all.map((one) => one.dataset.runId));
  const drawn = (count) => until(`${count} lines`, async () => (await lines()).length === count);
  const readout = byTestId(page, "curves-readout").locator("li");
  await drawn(3);
  assert.deepEqual(await compared(), ids);

  await t.test("the axis of the steps goes as far as the longest", async () => {
    const told = await readout.allInnerTexts();
    assert.deepEqual(told.map((line) => Number(line.match(/step (\d+)/)[1])), [3, 9, 6], "the last of each");
    const labels = await page.locator("#chart-main .grid text").allTextContents();
    assert.ok(labels.includes("8") || labels.includes("9"), labels.join(" "));
  });

  await t.test("which loss and which axis is chosen for every line", async () => {
    const points = await Promise.all(ids.map(async (id) => {
      const response = await fetch(`${retinker.serviceUrl}/retinker/local/v1/runs/${id}/metrics?limit=100`, {
        headers: { "x-api-key": "tml-test" },
      });
      return (await response.json()).points.at(-1);
    }));
    const told = async (member) => {
      const texts = await readout.allInnerTexts();
      points.forEach((point, at) => {
        const numbers = texts[at].match(/\d+(\.\d+)?/g).map(Number);
        const near = (number) => Math.abs(number - point[member]) <= Math.abs(point[member]) * 0.002;
        assert.ok(numbers.some(near), `${member} ${point[member]}: ${texts[at]}`);
      });
    };
    await told("loss_per_token");
    await byTestId(page, "curves-loss").selectOption("loss");
    await page.locator('[data-metric="loss"] #chart-main').waitFor();
    await told("loss");
    const before = await lines();
    await byTestId(page, "curves-log").check();
    await until("other lines", async () => (await lines()).every((line, at) => line !== before[at]));
    await byTestId(page, "curves-log").uncheck();
    await until("the same lines", async () => JSON.stringify(await lines()) === JSON.stringify(before));
    await byTestId(page, "curves-smoothing").fill("50");
    await until("their averages", async () => (await lines()).length === 6);
    assert.equal(await page.locator("#chart-main path.line.faint").count(), 3, "the lines themselves stay in sight");
    await byTestId(page, "curves-smoothing").fill("0");
    await drawn(3);
  });

  await t.test("the one that is chosen is left out, everywhere, and comes back by the way back", async () => {
    await byTestId(page, "curves-log").check();
    await legend.getByRole("link", { name: "Leave out long" }).click();
    await page.waitForURL((url) => url.searchParams.getAll("run").join() === [ids[0], ids[2]].join());
    await until("the legend", async () => (await compared()).join() === [ids[0], ids[2]].join());
    await drawn(2);
    assert.deepEqual((await readout.allInnerTexts()).map((line) => Number(line.match(/step (\d+)/)[1])), [3, 6]);
    await byTestId(page, "compare-count").getByText("2 runs", { exact: true }).waitFor();
    assert.equal(await byTestId(page, "curves-log").isChecked(), true, "how they are drawn stays as it was");
    await page.goBack();
    await until("all three", async () => (await compared()).join() === ids.join());
    await drawn(3);
    await picture(page, "compare-three");
    // While the others are being read, no name stands for another run.
    const named = () => legend.locator("li").evaluateAll((all) =>
      all.map((one) => [one.dataset.runId, one.querySelector("a").innerText, new URL(one.querySelector("a").href).pathname]));
    const before = await named();
    const go = await holdBack(page, "**/retinker/v1/runs/*");
    await legend.getByRole("link", { name: "Leave out short" }).click();
    await until("the legend", async () => (await compared()).join() === ids.slice(1).join());
    assert.deepEqual(await named(), before.slice(1));
    go();
    await page.goBack();
    await until("all three again", async () => (await compared()).join() === ids.join());
    await drawn(3);
  });

  await t.test("and the last but one leaves one run alone, which is compared with nothing", async () => {
    for (const name of ["short", "long"]) {
      await legend.getByRole("link", { name: `Leave out ${name}` }).click();
      await until(name, async () => !(await page.locator(`[aria-label="Leave out ${name}"]`).count()));
    }
    await drawn(1);
    assert.deepEqual(await compared(), [ids[2]]);
    assert.equal(await byTestId(page, "compare-differences").count(), 0);
    await legend.getByRole("link", { name: "Leave out twin" }).click();
    await byTestId(page, "compare-empty").waitFor();
  });
  assert.deepEqual(page.problems, []);
});
