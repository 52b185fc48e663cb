// Fresh folders, with the package installed from its tarball.
import { execFile } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";

import { required, temporaryDir } from "../../browser/support/retinker.mjs";

const execute = promisify(execFile);

/** Where the programs are that the tests need. */
export const TOOLS = fileURLToPath(new URL("../node_modules", import.meta.url));

/** A folder with these files, in which the package is installed and nothing else. */
export async function freshFolder(t, files = {}) {
  const folder = await temporaryDir(t);
  await write(folder, { "package.json": JSON.stringify({ name: "somebody", version: "1.0.0", type: "module" }), ...files });
  await run("npm", ["install", "--silent", "--no-audit", "--no-fund", required("RETINKER_NPM")], folder);
  return folder;
}

/** The package as a program in a fresh folder imports it, and the folder. */
export async function installed(t) {
  const folder = await freshFolder(t, { "entry.mjs": 'export * from "retinker";\n', "rest.mjs": 'export * from "retinker/rest";\n' });
  const entry = (name) => import(pathToFileURL(join(folder, name)).href);
  return { folder, retinker: await entry("entry.mjs"), rest: await entry("rest.mjs") };
}

/** Writes files into a folder. */
export async function write(folder, files) {
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), text);
  }
}

/** Runs a program in a folder, to its end; gives what it printed. A failure tells what it said. */
export async function run(program, args, folder, env = {}) {
  try {
    const { stdout } = await execute(program, args, { cwd: folder, env: { ...process.env, ...env }, maxBuffer: 64 << 20 });
    return stdout;
  } catch (error) {
    throw new Error(`${program} ${args.join(" ")} failed in ${folder}:\n${error.stdout ?? ""}\n${error.stderr ?? error}`);
  }
}
