// Every page and dialog of the console. Tests that hold for all of them go by these lists: a new one is a line here.
import { byTestId } from "./browser.mjs";

const ofRun = (id) => `/runs/${encodeURIComponent(id)}`;

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
  { name: "activity", path: () => "/activity", there: "restore-row", reads: true, empty: /nothing has been restored|no run has been seen/i },
  { name: "how to begin", path: () => "/welcome", there: "welcome-state" },
  { name: "no such connection", path: () => "/?on=nobody", there: "no-connection" },
  { name: "no such run", path: () => "/runs/no-such-run", there: "run-not-found" },
  { name: "no such page", path: () => "/nowhere", there: "not-found" },
];

/** `open` opens it on the page at `path`; `there` is its test id. */
export const DIALOGS = [
  {
    name: "the restore of a run",
    path: (scene) => ofRun(scene.poisoned),
    open: async (page) => {
      await byTestId(page, "restore-button").click();
      await byTestId(page, "plan-summary").waitFor();
    },
    there: "restore-dialog",
  },
  {
    name: "the connections",
    path: () => "/",
    open: async (page) => {
      await byTestId(page, "connections-open").click();
      await byTestId(page, "connection").first().waitFor();
    },
    there: "connections",
  },
];
