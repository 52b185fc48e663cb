// Pages in Chromium, of a web server that stands before the service.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join } from "node:path";

import { chromium } from "playwright-core";

import { required } from "../../browser/support/retinker.mjs";
import { KEY } from "./service.mjs";

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'";

/** A web server of these folders, later ones first, that forwards `/api` to the service: a page may ask its own origin only. */
export async function serve(t, service, ...folders) {
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://page.test");
    if (pathname.startsWith("/api/")) {
      const body = [];
      for await (const piece of request) body.push(piece);
      const { method, headers } = request;
      const answer = await fetch(service + request.url, {
        method,
        headers: { "content-type": headers["content-type"] ?? "", accept: headers.accept ?? "", "x-api-key": KEY },
        ...(method === "GET" ? {} : { body: Buffer.concat(body) }),
      });
      response.writeHead(answer.status, { "content-type": answer.headers.get("content-type") ?? "" });
      return response.end(Buffer.from(await answer.arrayBuffer()));
    }
    for (const folder of folders.toReversed()) {
      const file = join(folder, pathname === "/" ? "index.html" : pathname);
      const bytes = await readFile(file).catch(() => undefined);
      if (bytes === undefined) continue;
      response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "text/plain", "content-security-policy": POLICY });
      return response.end(bytes);
    }
    response.writeHead(pathname === "/favicon.ico" ? 204 : 404).end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  return `http://127.0.0.1:${server.address().port}`;
}

/** A Chromium. */
export async function openChromium(t) {
  const browser = await chromium.launch({
    executablePath: required("RETINKER_CHROMIUM"),
    args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  t.after(() => browser.close());
  return browser;
}
