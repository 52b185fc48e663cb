// Every page and dialog of the console. Tests that hold for all of them go by these lists: a new one is a line here.
import { byTestId, openPage } from "./browser.mjs";

const ofRun = (id) => `/runs/${encodeURIComponent(id)}`;
const ofSession = (runId) => `/sessions/${encodeURIComponent(runId.split(":train:")[0])}`;

/** `path` of a scene (`scene.mjs`); `there` is the test id of what says that the page shows what it is for; `reads` says
 * that the page shows something of the service, and `empty` what it would claim if there were nothing. */
export const PAGES = [
  { name: "runs", path: () => "/", there: "run-row", reads: true, empty: /no training runs yet|no run matches|0 of 0/i },
  { name: "runs, none matching", path: () => "/?q=nothing-is-called-so", there: "runs-no-match" },
  { name: "runs, a senseless filter", path: () => "/?q=rank%3E%3Dmany", there: "banner-problem" },
  { name: "a healthy run", path: (scene) => ofRun(scene.healthy), there: "checkpoints-table", reads: true, empty: /nothing (was|has been) saved|no such run/i },
  { name: "a poisoned run", path: (scene) => ofRun(scene.poisoned), there: "restore-button" },
  { name: "an unrecoverable run", path: (scene) => ofRun(scene.unrecoverable), there: "no-restore-reason" },
  { name: "a restored run", path: (scene) => ofRun(scene.restored), there: "restored-to-link" },
  { name: "a restored run's successor", path: (scene) => ofRun(scene.successor), there: "restored-from-link" },
  { name: "runs compared", path: (scene) => `/compare?run=${encodeURIComponent(scene.healthy)}&run=${encodeURIComponent(scene.poisoned)}`, there: "compare-differences", reads: true, empty: /no runs were chosen|no such run/i },
  { name: "no runs to compare", path: () => "/compare", there: "compare-empty" },
  { name: "checkpoints", path: () => "/checkpoints", there: "checkpoint-item", reads: true, empty: /nothing has been saved|no checkpoint matches|^0 checkpoints/im },
  { name: "checkpoints, none matching", path: () => "/checkpoints?q=nothing-is-called-so", there: "checkpoints-no-match" },
  { name: "activity", path: () => "/activity", there: "restore-row", reads: true, empty: /nothing has been restored|no run has been seen/i },
  { name: "sessions", path: () => "/sessions", there: "session-row", reads: true, empty: /there are no sessions|no session matches/i },
  { name: "a session", path: (scene) => ofSession(scene.healthy), there: "session-runs", reads: true, empty: /no run was made|no such session/i },
  { name: "samplers", path: () => "/samplers", there: "samplers-total", reads: true, empty: /tells nothing of samplers/i },
  { name: "projects", path: () => "/projects", there: "project-row", reads: true, empty: /no projects/i },
  { name: "no such session", path: () => "/sessions/nobody", there: "session-not-found" },
  { name: "usage", path: () => "/usage", there: "storage-table", reads: true, empty: /no checkpoint is stored|^nothing was used/im },
  { name: "a model to try", path: () => "/try?path=retinker%2Fnano-llama", there: "try-run", reads: true, empty: /nothing (can be|to be) tried/i },
  { name: "how to begin", path: () => "/welcome", there: "welcome-state" },
  { name: "no such connection", path: () => "/?on=nobody", there: "no-connection" },
  { name: "no such run", path: () => "/runs/no-such-run", there: "run-not-found" },
  { name: "no such page", path: () => "/nowhere", there: "not-found" },
];

/** The pages that show something of the service. */
export const READS = PAGES.filter((page) => page.reads);

/** Opens each of them on this console, in contexts of their own: a browser has six connections for one. */
export async function openAll(browser, made, retinker) {
  return Promise.all(READS.map(async (of) => {
    const page = await openPage(browser, retinker.consoleUrl);
    await page.goto(new URL(of.path(made), retinker.consoleUrl).href);
    return { of, page };
  }));
}

export const closeAll = (tabs) => Promise.all(tabs.map(({ page }) => page.context().close()));

/** Samples of two models side by side, with the scores of the prompt, and those of the first one's sample as a table. */
async function tryTwo(page) {
  await byTestId(page, "try-prompt").fill("Tell me");
  await byTestId(page, "try-max-tokens").fill("12");
  await byTestId(page, "try-prompt-logprobs").check();
  await byTestId(page, "try-run").click();
  for (const id of ["try-result", "try-result-with"]) {
    await page.locator(`[data-testid="${id}"][data-state="done"]`).waitFor();
  }
  await page.locator('[data-testid="try-result"] .sampled').last().locator("summary").click();
}

/** Another checkpoint than the one that was planned, without the optimizer's state: the plan follows. */
async function planAnother(page) {
  await byTestId(page, "restore-button").click();
  const planned = byTestId(page, "plan-checkpoint");
  const newest = await planned.getAttribute("data-path");
  await page.locator('input[name="checkpoint"]').last().check();
  await byTestId(page, "optimizer-toggle").uncheck();
  await page.waitForFunction(
    (newest) => {
      const planned = document.querySelector('[data-testid="plan-checkpoint"]');
      return planned && planned.dataset.path !== newest && !planned.closest('[aria-busy="true"]');
    },
    newest,
  );
}

/** Begins the download of the first checkpoint. */
async function download(page) {
  await byTestId(page, "more").first().click();
  await byTestId(page, "download").click();
}

const tab = (name) => (page) => page.getByRole("tab", { name }).click();

/** `open` opens it on the page at `path`, which is there when it shows any of `ANCHORS`; `there` is the test id of what
 * then is there. Parts of a page that show up when something is done are dialogs here as well. What is opened leaves the
 * scene to the others: the only things that stay are copies of a checkpoint. */
export const DIALOGS = [
  {
    name: "the restore of a run",
    path: (scene) => ofRun(scene.poisoned),
    open: (page) => byTestId(page, "restore-button").click(),
    there: "plan-summary",
  },
  {
    name: "the restore of a run, otherwise",
    path: (scene) => ofRun(scene.poisoned),
    open: planAnother,
    there: "plan-summary",
  },
  {
    name: "code that starts from a checkpoint",
    path: (scene) => ofRun(scene.healthy),
    open: tab("Cookbook"),
    there: "snippet-cookbook",
  },
  {
    name: "code that takes a run over",
    path: (scene) => ofRun(scene.successor),
    open: tab("TypeScript"),
    there: "snippet-typescript",
  },
  {
    name: "the connections",
    path: () => "/",
    open: (page) => byTestId(page, "connections-open").click(),
    there: "connection",
  },
  { name: "the keys", path: () => "/", open: (page) => page.keyboard.press("?"), there: "keys-dialog" },
  { name: "the palette", path: () => "/", open: (page) => page.keyboard.press("Control+k"), there: "palette-option" },
  {
    name: "the palette that finds nothing",
    path: () => "/",
    open: async (page) => {
      await page.keyboard.press("Control+k");
      await byTestId(page, "palette-text").fill("nothing is called so");
      await byTestId(page, "palette-option").first().waitFor({ state: "detached" });
    },
    there: "palette-text",
  },
  { name: "the saved views", path: () => "/", open: (page) => byTestId(page, "views-menu").click(), there: "view-name" },
  { name: "the columns", path: () => "/", open: (page) => byTestId(page, "columns-menu").click(), there: "column-rank" },
  {
    name: "the selection of runs",
    path: () => "/",
    open: (page) => byTestId(page, "run-row").first().locator("input").check(),
    there: "selected-count",
  },
  {
    name: "the restore of several runs",
    path: () => "/",
    open: async (page) => {
      const boxes = byTestId(page, "run-row").locator("input");
      for (let n = 0; n < 2; n += 1) await boxes.nth(n).check();
      await byTestId(page, "restore-selected").click();
    },
    there: "bulk-outlook",
  },
  {
    name: "a checkpoint",
    path: () => "/checkpoints",
    open: async (page) => byTestId(page, "more").first().click(),
    there: "checkpoint-dialog",
  },
  {
    name: "how long checkpoints live",
    path: () => "/checkpoints",
    open: async (page) => {
      await byTestId(page, "select-page").check();
      await byTestId(page, "bulk-life").click();
    },
    there: "confirm-life",
  },
  {
    name: "what deleting would do",
    path: () => "/checkpoints",
    open: async (page) => {
      await byTestId(page, "select-page").check();
      await byTestId(page, "bulk-delete").click();
    },
    there: "preview-told",
  },
  {
    name: "what a rule would delete",
    path: () => "/checkpoints",
    open: async (page) => {
      await byTestId(page, "retention-button").click();
      await byTestId(page, "preview-retention").click();
    },
    there: "preview-told",
  },
  {
    name: "a download under way",
    path: () => "/checkpoints",
    open: async (page) => {
      // How it stands is asked for, and never answered.
      const asked = new Promise((resolve) => {
        page.route("**/retinker/v1/checkpoints/downloads/*", resolve, { times: 1 });
      });
      await download(page);
      await asked;
    },
    there: "download-state",
  },
  {
    name: "a download that has ended",
    path: () => "/checkpoints",
    open: async (page) => {
      await download(page);
      await page.locator('[data-testid="download-state"][data-state="done"]').waitFor();
    },
    there: "download-state",
  },
  {
    name: "a checkpoint that was copied",
    path: () => "/checkpoints",
    open: async (page) => {
      await byTestId(page, "more").first().click();
      await byTestId(page, "copy").click();
      await page.locator('[data-testid="job"][data-running="false"]').waitFor();
    },
    there: "job",
  },
  // The host keeps the session of what it restored.
  {
    name: "the end of a session",
    path: (scene) => ofSession(scene.successor),
    open: (page) => byTestId(page, "finish-session").click(),
    there: "finish-consequence",
  },
  {
    name: "the project of a session",
    path: (scene) => ofSession(scene.successor),
    open: (page) => byTestId(page, "assign-project").click(),
    there: "project-id",
  },
  {
    name: "two models tried",
    path: () => "/try?path=retinker%2Fnano-llama&with=retinker%2Ftiny-llama-1m",
    open: tryTwo,
    there: "token-table",
  },
];

/** What says that a page is there, so that something can be opened on it. */
const ANCHORS = ["run-row", "verdict", "checkpoint-item", "session-state", "try-run"];

/** Shows one of these lists' lines. */
export async function show(page, made, { path, open, there }) {
  await page.goto(new URL(path(made), made.retinker.consoleUrl).href);
  if (open) {
    await page.locator(ANCHORS.map((id) => `[data-testid="${id}"]`).join(", ")).first().waitFor();
    await open(page);
  }
  await byTestId(page, there).first().waitFor();
}

/** What browsers report of pages that are no problem: addresses at which there is nothing, a filter without sense. */
export const unexpected = (problems) => problems.filter((problem) => !/status of 40[04]/.test(problem));
