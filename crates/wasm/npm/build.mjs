// Makes dist/ out of src/ and pkg/ (what wasm-pack has built of the crate): a bundle for each entry and platform, and types.
//
//   node build.mjs [PKG DIST ENTRY...]
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const [pkg = "pkg", dist = "dist", ...entries] = process.argv.slice(2);
const ENTRIES = entries.length > 0 ? entries : ["index", "rest"];
const WASM = { index: "retinker", rest: "rest" };
const PLATFORMS = [
  { name: "node", format: "cjs", out: (entry) => `${dist}/cjs/${entry}.js`, platform: "node" },
  { name: "bundler", format: "esm", out: (entry) => `${dist}/esm/${entry}.bundler.js`, platform: "neutral" },
  { name: "plain", format: "esm", out: (entry) => `${dist}/esm/${entry}.js`, platform: "neutral" },
  { name: "workerd", format: "esm", out: (entry) => `${dist}/esm/${entry}.workerd.js`, platform: "neutral" },
];

rmSync(dist, { recursive: true, force: true });
mkdirSync(`${dist}/cjs`, { recursive: true });
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "--outDir", `${dist}/esm`], { stdio: "inherit" });
for (const entry of ENTRIES) {
  const wasm = WASM[entry];
  cpSync(`${pkg}/${wasm}/${wasm}_bg.wasm`, `${dist}/${wasm}.wasm`);
  for (const { name, format, out, platform } of PLATFORMS) {
    await build({
      entryPoints: [`src/${entry}.ts`],
      outfile: out(entry),
      bundle: true,
      format,
      platform,
      target: "es2022",
      // A page without a bundler loads it as it is; else people read stack traces, and bundlers shorten it.
      minify: name === "plain",
      minifySyntax: true,
      legalComments: "none",
      inject: ["src/globals.ts"],
      define: { __WASM__: JSON.stringify(`../${wasm}.wasm`) },
      plugins: [
        {
          name: "this-platform",
          setup({ onResolve }) {
            onResolve({ filter: /^#wasm$/ }, () => ({ path: `${process.cwd()}/${pkg}/${wasm}/${wasm}.js` }));
            onResolve({ filter: /^#platform$/ }, () => ({ path: `${process.cwd()}/src/platform/${name}.ts` }));
            onResolve({ filter: /^#wasm-file$/ }, () => ({ path: `../${wasm}.wasm`, external: true }));
          },
        },
      ],
    });
  }
  // In Node `import` and `require` share one wasm, and one of each class.
  const names = Object.keys((await import(`${process.cwd()}/${dist}/esm/${entry}.js`)));
  writeFileSync(
    `${dist}/esm/${entry}.node.js`,
    `import all from "../cjs/${entry}.js";\nexport const { ${names.sort().join(", ")} } = all;\n`,
  );
}
await build({ entryPoints: ["src/timers.worker.ts"], outfile: `${dist}/esm/timers.worker.js`, format: "esm", target: "es2022", minify: true });
writeFileSync(`${dist}/cjs/package.json`, '{ "type": "commonjs" }\n');
// What people see of types is what index.d.ts and rest.d.ts lead to; the others speak of the wasm's insides.
const shown = reached(ENTRIES.map((entry) => `${entry}.d.ts`));
for (const file of readdirSync(`${dist}/esm`, { recursive: true })) {
  if (typeof file === "string" && file.endsWith(".d.ts") && !shown.has(file)) rmSync(`${dist}/esm/${file}`);
}
for (const file of shown) cpSync(`${dist}/esm/${file}`, `${dist}/cjs/${file}`);
rmSync(`${dist}/esm/platform`, { recursive: true, force: true });

/** These files, and all that they refer to. */
function reached(files) {
  const all = new Set();
  for (const queue = [...files]; queue.length > 0; ) {
    const file = queue.pop();
    if (all.has(file)) continue;
    all.add(file);
    for (const [, name] of readFileSync(`${dist}/esm/${file}`, "utf8").matchAll(/from "\.\/([\w-]+)\.js"/g)) queue.push(`${name}.d.ts`);
  }
  return all;
}
