// Every page and dialog of the console. Tests that hold for all of them go by these lists: a new one is a line here.
import { byTestId } from "./browser.mjs";

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
  { name: "samplers", path: () => "/samplers", there: "samplers-total", reads: true, empty: /no sampler is found/i },
  { name: "projects", path: () => "/projects", there: "project-row", reads: true, empty: /no projects/i },
  { name: "no such session", path: () => "/sessions/nobody", there: "session-not-found" },
  { name: "usage", path: () => "/usage", there: "storage-table", reads: true, empty: /no checkpoint is stored|^nothing was used/im },
  { name: "a model to try", path: () => "/try?path=retinker%2Fnano-llama", there: "try-run" },
  { name: "how to begin", path: () => "/welcome", there: "welcome-state" },
  { name: "no such connection", path: () => "/?on=nobody", there: "no-connection" },
  { name: "no such run", path: () => "/runs/no-such-run", there: "run-not-found" },
  { name: "no such page", path: () => "/nowhere", there: "not-found" },
];

/** `open` opens it on the page at `path`; `there` is the test id of what then is there. */
export const DIALOGS = [
  {
    name: "the restore of a run",
    path: (scene) => ofRun(scene.poisoned),
    open: (page) => byTestId(page, "restore-button").click(),
    there: "plan-summary",
  },
  {
    name: "the connections",
    path: () => "/",
    open: (page) => byTestId(page, "connections-open").click(),
    there: "connection",
  },
  { name: "the keys", path: () => "/", open: (page) => page.keyboard.press("?"), there: "keys-dialog" },
  { name: "the palette", path: () => "/", open: (page) => page.keyboard.press("Control+k"), there: "palette-option" },
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
];
