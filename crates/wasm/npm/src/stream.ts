/** What comes piece by piece. */
import type { Pages } from "#wasm";
import { call, guarded, type Wasm } from "./engine.js";
import { read } from "./json.js";
import type { Listing } from "./listing.js";
import type { CallOptions } from "./options.js";

/** What a stream of the wasm's gives, one after the other; leaving the loop stops it. */
export async function* pieces<T>(open: (wasm: Wasm) => Pages, { signal }: CallOptions = {}): AsyncGenerator<T, void, undefined> {
  const stream = await call(async (wasm) => open(wasm));
  try {
    for (;;) {
      const piece = (await guarded(() => stream.next(signal))) as T | undefined;
      if (piece === undefined) return;
      yield piece;
    }
  } finally {
    stream.free();
  }
}

/** The same of what comes as JSON. */
export async function* values<T>(open: (wasm: Wasm) => Pages, options?: CallOptions): AsyncGenerator<T, void, undefined> {
  for await (const told of pieces<string>(open, options)) yield read<T>(told);
}

/** A list that is read a page at a time. */
export function listing<T>(open: (wasm: Wasm) => Pages, options?: CallOptions): Listing<T> {
  const pages = () => values<T[]>(open, options);
  return {
    pages,
    async *[Symbol.asyncIterator]() {
      for await (const page of pages()) yield* page;
    },
  };
}
