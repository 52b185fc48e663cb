import type { Client } from "#wasm";
import type { Freed, SharedHandle } from "./handle.js";

/** A client of a service. Others can be made of it that talk to the same service in the same way. */
export abstract class Connected {
  readonly #client: SharedHandle<Client>;
  #own: Freed | undefined;

  /** @internal */
  constructor(client: SharedHandle<Client>, own: Freed) {
    this.#client = client;
    this.#own = own;
    client.hold();
  }

  /** @internal */
  get _client(): SharedHandle<Client> {
    return this.#client;
  }

  /** @internal */
  get _isDisposed(): boolean {
    return this.#own === undefined;
  }

  /** Lets go of what the wasm holds for this client: what `using` does. Calls afterwards are refused; what was begun goes on. */
  dispose(): void {
    if (this.#own === undefined) return;
    this.#own.free();
    this.#own = undefined;
    this.#client.release();
  }

  /** The same. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
