// A service that misbehaves in every way, seen from every page: what is said is true, what was read before stays, "could not be
// read" is never shown as "there is nothing", and all is well again by itself when the service is.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, openBrowser, picture } from "./support/browser.mjs";
import { FAULTS, Misbehaving } from "./support/misbehaving.mjs";
import { closeAll, openAll } from "./support/pages.mjs";
import { until } from "./support/retinker.mjs";
import { scene } from "./support/scene.mjs";

/** What each fault is called on the page, and words of its banner. Slow and flapping services are read all the same. */
const TOLD = {
  down: ["service_unreachable", /does not answer/],
  401: ["service_unauthorized", /401/],
  402: ["service_unpaid", /402/],
  403: ["service_unauthorized", /403/],
  // What had a list of runs is a Tinker service, whatever it says now.
  404: ["service_refused", /404/],
  429: ["service_busy", /429/],
  500: ["service_failing", /500/],
  malformed: ["service_unreadable", /Check the address/],
};

/** The same where nothing was ever read. */
const TOLD_UNREAD = { ...TOLD, 404: ["service_foreign", /no list of training runs/] };

/** With `RETINKER_OUTAGES=all`, as a soak sets it, every fault both ways, and each until all is well again; else one of each kind: no
 * answer, a late one, one that refuses, one that makes no sense. */
const [READ_BEFORE, NEVER_READ] =
  process.env.RETINKER_OUTAGES === "all" ? [FAULTS, FAULTS] : [["down", "slow", "malformed"], ["flapping", "404", "500"]];

/** A console of its own journal on a service behind a proxy that misbehaves. */
async function behindProxy(t, made, fault) {
  const proxy = await Misbehaving.start(t, made.retinker.serviceUrl);
  if (fault) await proxy.misbehave(fault);
  return { proxy, retinker: await proxy.console(t) };
}

/** What a page shows: what was done about runs is in this console's own journal, which has done nothing yet. */
const shows = ({ name, there }) => (name === "activity" ? "no-restores" : there);

/** What the page shows for itself, the heading and the way to other pages aside. */
const said = (page) => page.locator("main").innerText();

/** The banner of this problem. */
const banner = (page, code) => page.locator(`[data-testid="banner-problem"][data-code="${code}"]`).first();

test("every page, in the ways in which a service can misbehave", async (t) => {
  const made = await scene(t);
  const browser = await openBrowser(t);
  for (const fault of READ_BEFORE) {
    await t.test(`a service that was read before: ${fault}`, async (t) => {
      const { proxy, retinker } = await behindProxy(t, made, null);
      const before = await openAll(browser, made, retinker);
      for (const { of, page } of before) await byTestId(page, shows(of)).first().waitFor();
      await proxy.misbehave(fault);
      const told = TOLD[fault];
      if (told) {
        const [code, words] = told;
        for (const { of, page } of before) {
          await banner(page, code).waitFor({ timeout: 60_000 });
          assert.match(await banner(page, code).innerText(), words, of.name);
          assert.ok((await byTestId(page, shows(of)).count()) > 0, `${of.name} keeps what it shows: ${await said(page)}`);
          const fresh = byTestId(page, "freshness");
          assert.equal(await fresh.getAttribute("data-state"), "stale", of.name);
          assert.match(await fresh.innerText(), /as of \d/, of.name);
        }
        await picture(before[0].page, `outage-${fault}`);
        const during = await openAll(browser, made, retinker);
        for (const { of, page } of during) {
          await banner(page, code).waitFor({ timeout: 60_000 });
          assert.doesNotMatch(await said(page), of.name === "activity" ? /No run/ : of.empty, of.name);
          if (of.name === "runs") await byTestId(page, "run-row").first().waitFor();
        }
        await proxy.misbehave(null);
        await recovers([...before, ...during]);
        await closeAll(during);
      } else {
        // It can be read, if late or now and then: nothing of what was there may go.
        const end = Date.now() + 15_000;
        while (Date.now() < end) {
          for (const { of, page } of before) {
            assert.ok(await byTestId(page, shows(of)).first().isVisible(), `${of.name} keeps what it shows`);
          }
          await new Promise((resolve) => setTimeout(resolve, 500));
        }
        await proxy.misbehave(null);
        await recovers(before);
      }
      await closeAll(before);
      await retinker.kill();
    });
  }

  await t.test("a service that refuses in one way after another", async (t) => {
    const { proxy, retinker } = await behindProxy(t, made, null);
    const tabs = await openAll(browser, made, retinker);
    for (const { of, page } of tabs) await byTestId(page, shows(of)).first().waitFor();
    for (const fault of ["401", "402", "403", "404", "429", "500"]) {
      await proxy.misbehave(fault);
      const [code, words] = TOLD[fault];
      for (const { of, page } of tabs) {
        await banner(page, code).filter({ hasText: words }).waitFor({ timeout: 60_000 });
        assert.ok((await byTestId(page, shows(of)).count()) > 0, `${of.name} keeps what it shows at ${fault}`);
      }
    }
    await proxy.misbehave(null);
    await recovers(tabs);
    await closeAll(tabs);
    await retinker.kill();
  });

  for (const fault of NEVER_READ) {
    await t.test(`a service that was never read: ${fault}`, async (t) => {
      const { proxy, retinker } = await behindProxy(t, made, fault);
      const tabs = await openAll(browser, made, retinker);
      const told = TOLD_UNREAD[fault];
      for (const { of, page } of tabs) {
        if (of.name === "activity") continue;
        if (told) {
          await banner(page, told[0]).waitFor({ timeout: 60_000 });
          assert.match(await banner(page, told[0]).innerText(), told[1], of.name);
        }
        if (fault === "flapping") {
          // For three turns of it: well, not well, and each time something is read.
          for (const end = Date.now() + 9_000; Date.now() < end; await page.waitForTimeout(250)) {
            assert.doesNotMatch(await said(page), of.empty, of.name);
          }
        }
        assert.doesNotMatch(await said(page), of.empty, of.name);
      }
      await picture(tabs[0].page, `outage-${fault}-never-read`);
      // As slow as it is, it is read in the end; but for what takes more answers, one after another, than the host waits for.
      if (fault === "slow") await recovers(tabs.filter(({ of }) => of.name !== "usage"));
      await proxy.misbehave(null);
      await recovers(tabs);
      await closeAll(tabs);
      await retinker.kill();
    });
  }
});

/** Waits until each tab shows what it is for, and no problem. */
async function recovers(tabs) {
  for (const { of, page } of tabs) {
    await byTestId(page, shows(of)).first().waitFor({ timeout: 90_000 });
    await until(`${of.name} to be without a problem`, async () =>
      (await byTestId(page, "banner-problem").count()) === 0 &&
      ["live", "once"].includes(await byTestId(page, "freshness").getAttribute("data-state")));
    // That the service failed was told; the page itself has not.
    assert.deepEqual(page.problems.filter((problem) => !/Failed to load resource/.test(problem)), [], of.name);
  }
}
