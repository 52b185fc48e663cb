import type { Client } from "#wasm";
import type { Handle } from "./handle.js";

/** A client of a service. Others can be made of it that talk to the same service in the same way. */
export abstract class Connected {
  readonly #client: Handle<Client>;

  /** @internal */
  constructor(client: Handle<Client>) {
    this.#client = client;
  }

  /** @internal */
  get _client(): Handle<Client> {
    return this.#client;
  }
}
