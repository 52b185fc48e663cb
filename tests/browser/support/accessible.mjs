// What a program can find of what shuts people out.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

/** Fails with all that axe finds on the page as it is now, by WCAG 2.2 AA and good practice. */
export async function assertAccessible(page, what) {
  // Through the debugger, which the page's Content-Security-Policy leaves alone.
  const debug = await page.context().newCDPSession(page);
  const run = async (expression) => {
    const { result, exceptionDetails } = await debug.send("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
    });
    assert.equal(exceptionDetails, undefined, `axe could not run on ${what}: ${JSON.stringify(exceptionDetails)}`);
    return result.value;
  };
  await run(`${axe};0`);
  const options = JSON.stringify({ runOnly: { type: "tag", values: TAGS }, resultTypes: ["violations"] });
  const violations = await run(`axe.run(document, ${options}).then(({ violations }) => violations.map((one) => ({
    rule: one.id, impact: one.impact, help: one.help,
    nodes: one.nodes.map((node) => node.target.join(" ") + ": " + node.html.slice(0, 200) + " — " + node.failureSummary),
  })))`);
  await debug.detach();
  const told = violations.map(({ rule, impact, help, nodes }) => `${rule} (${impact}): ${help}\n  ${nodes.join("\n  ")}`);
  assert.equal(told.length, 0, `${what}:\n${told.join("\n")}`);
}

/** Fails if the page is wider than what one sees of it, so that one has to scroll sideways to read. */
export async function assertFits(page, what) {
  const { wide, seen, most } = await page.evaluate(() => {
    const root = document.documentElement;
    const wider = [...document.body.querySelectorAll("*")].filter((node) => {
      const { right, width } = node.getBoundingClientRect();
      return width > 0 && right > root.clientWidth + 1;
    });
    const most = wider.slice(0, 5).map((node) => node.outerHTML.slice(0, 120));
    return { wide: root.scrollWidth, seen: root.clientWidth, most };
  });
  assert.ok(wide <= seen, `${what} is ${wide} wide where ${seen} are seen: ${most.join("\n")}`);
}

/** Fails if a row of a table or a fact is higher than the window, so that one has to scroll to get past one text. */
export async function assertRowsFit(page, what) {
  const { seen, higher } = await page.evaluate(() => {
    const rows = [...document.querySelectorAll("tr, [role=row], dt, dd")].filter((row) => row.checkVisibility());
    const height = (row) => Math.round(row.getBoundingClientRect().height);
    const higher = rows.filter((row) => height(row) > innerHeight);
    return { seen: innerHeight, higher: higher.map((row) => `${height(row)}: ${row.innerText.slice(0, 80)}`) };
  });
  assert.deepEqual(higher, [], `rows of ${what} are higher than the ${seen} that are seen`);
}

/** The least that a control measures each way: WCAG 2.2, success criterion 2.5.8. */
const TARGET = 24;

/** Fails if something that is pressed is smaller than a fingertip needs. A link that is nothing but its text is as high as a
 * line, and whether it has space about it is axe's to see; a box is pressed by its label too. */
export async function assertLargeEnough(page, what) {
  const small = await page.evaluate((least) => {
    const usable = "a[href], button, input, select, textarea, summary, [role=tab], [role=option]";
    const within = document.querySelector("dialog[open]") ?? document.body;
    const isShown = (node) =>
      node.checkVisibility({ visibilityProperty: true }) && !node.closest("[inert], [aria-hidden=true]");
    const isText = (node) => {
      if (!node.matches("a") || node.querySelector("svg")) return false;
      const { paddingTop, borderTopWidth } = getComputedStyle(node);
      return parseFloat(paddingTop) === 0 && parseFloat(borderTopWidth) === 0 && node.innerText.trim() !== "";
    };
    const box = (node) => {
      const label = node.matches("[type=checkbox], [type=radio]") && node.closest("label");
      return (label || node).getBoundingClientRect();
    };
    const all = [...within.querySelectorAll(usable)].filter((node) => isShown(node) && !isText(node));
    // Half a pixel is lost where a browser places a box between two.
    const isSmall = ({ width, height }) => width < least - 0.5 || height < least - 0.5;
    return all.filter((node) => isSmall(box(node))).map((node) => {
      const { width, height } = box(node);
      return `${Math.round(width)}x${Math.round(height)}: ${node.outerHTML.slice(0, 140)}`;
    });
  }, TARGET);
  assert.deepEqual(small, [], `what is pressed of ${what} is smaller than ${TARGET}x${TARGET}`);
}
