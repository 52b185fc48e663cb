/** What a client holds of the wasm's. */
import { ask, call, engine, type Wasm } from "./engine.js";
import { ConfigError } from "./errors.js";
import { read } from "./json.js";

export interface Freed {
  free(): void;
}

/**
 * An object of the wasm's that is made when it is first needed: clients can be made before the wasm is there. What makes no
 * sense is thrown at once where it is there already.
 */
export class Handle<T extends Freed> {
  #object: T | undefined;
  #make: ((wasm: Wasm) => T) | undefined;

  constructor(make: (wasm: Wasm) => T) {
    this.#make = make;
    const wasm = engine();
    if (wasm !== undefined) this.of(wasm);
  }

  /** One that is there already. */
  static of<T extends Freed>(object: T): Handle<T> {
    return new Handle(() => object);
  }

  of(wasm: Wasm): T {
    if (this.#object === undefined) {
      const make = this.#make;
      if (make === undefined) throw new ConfigError("this client was disposed of, and takes no calls any more");
      this.#object = ask(() => make(wasm));
    }
    return this.#object;
  }

  /** Calls it, and reads what it says; what is no text is given as it is. */
  async call<R>(begin: (object: T, wasm: Wasm) => Promise<unknown>): Promise<R> {
    const told = await call((wasm) => begin(this.of(wasm), wasm));
    return typeof told === "string" ? read<R>(told) : (told as R);
  }

  /** The same of what is kept as the text that it is. */
  text(begin: (object: T, wasm: Wasm) => Promise<unknown>): Promise<string> {
    return call((wasm) => begin(this.of(wasm), wasm)) as Promise<string>;
  }

  /** The object itself, which is known to be there. */
  get now(): T {
    const wasm = engine();
    if (wasm === undefined) throw new ConfigError("retinker's wasm is not loaded yet");
    return this.of(wasm);
  }

  /** Asks it for something that is there at once. */
  ask<R>(of: (object: T) => R): R {
    return ask(() => of(this.now));
  }

  /** Lets go of it. A call afterwards is refused. */
  free(): void {
    this.#make = undefined;
    this.#object?.free();
    this.#object = undefined;
  }
}

/** One that several hold: it is let go of when the last of them does. */
export class SharedHandle<T extends Freed> extends Handle<T> {
  #holders = 0;

  hold(): void {
    this.#holders += 1;
  }

  release(): void {
    this.#holders -= 1;
    if (this.#holders === 0) this.free();
  }
}
