import type { Submitted } from "#wasm";
import { ask, guarded } from "./engine.js";
import { read } from "./json.js";
import { type CallOptions, known } from "./options.js";
import { values } from "./stream.js";

/** Of what was not submitted. */
async function* nothing(): AsyncGenerator<never, void, undefined> {}

/** What happens to a request while it waits. */
export type PendingEvent =
  /** The server has accepted it under this id. */
  | {
      /** What has happened. */
      readonly type: "accepted";
      /** The request's id. */
      readonly requestId: string;
    }
  /** The server is not done, and says why, where it does. */
  | {
      /** What has happened. */
      readonly type: "queued";
      /** Why it waits, where the server says. */
      readonly state?: QueueState;
      /** The same for people, where the server says. */
      readonly reason?: string;
    }
  /** The run was lost and is being made anew by its redo log; the result comes afterwards. Of runs that recover by themselves. */
  | {
      /** What has happened. */
      readonly type: "recovering";
      /** The run that was lost. */
      readonly runId: string;
    };

/**
 * Why a request waits: it is being worked on (`active`), the service is short of machines (`paused_capacity`), or the account is at a
 * limit (`paused_rate_limit`).
 */
export type QueueState = "active" | "paused_capacity" | "paused_rate_limit" | (string & {});

/**
 * The result of what was submitted to a run: to be awaited. The request has its place in the run's order from the moment that
 * the method was called, so several can be submitted before the first is awaited. Ending the waiting, by a signal, does not take
 * the request back. The failure of one that nobody awaits is no unhandled rejection: what is submitted after it says so.
 */
export class PendingResult<T> implements Promise<T> {
  /** `undefined`: it was not submitted, because its signal was given before. */
  readonly #submitted: Submitted | undefined;
  readonly #result: Promise<T>;
  /** The class's name, as texts of it show it. */
  readonly [Symbol.toStringTag] = "PendingResult";

  private constructor(submitted: Submitted | undefined, result: Promise<T>) {
    this.#submitted = submitted;
    this.#result = result;
    result.catch(() => {});
  }

  /** @internal */
  static _of<T, R>(submit: () => Submitted, { signal }: CallOptions, show: (result: R) => T): PendingResult<T> {
    if (signal?.aborted) return new PendingResult<T>(undefined, Promise.reject(signal.reason));
    const submitted = submit();
    const result = guarded(() => submitted.result(signal) as Promise<unknown>).then((told) =>
      show(typeof told === "string" ? read<R>(told) : (told as R)),
    );
    return new PendingResult(submitted, result);
  }

  /** The id under which the server has accepted it; absent as long as it has not. */
  get requestId(): string | undefined {
    return this.requestIds[0];
  }

  /** All ids: a batch that went out in several requests has one for each. */
  get requestIds(): readonly string[] {
    return ask(() => this.#submitted?.requestIds ?? []);
  }

  /** What happens to the request from now on, each change once, until its result is there. */
  events(options: CallOptions = {}): AsyncIterableIterator<PendingEvent> {
    const { signal } = known("events", options, ["signal"]);
    const submitted = this.#submitted;
    if (submitted === undefined) return nothing();
    const events = ask(() => submitted.events());
    return values<PendingEvent>(() => events, { signal });
  }

  /** What `await` calls: settles as the result does. */
  then<A = T, B = never>(
    fulfilled?: ((value: T) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.#result.then(fulfilled, rejected);
  }

  /** Has this called where the result is a failure. */
  catch<B = never>(rejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<T | B> {
    return this.#result.catch(rejected);
  }

  /** Has this called once the result is there, or has failed. */
  finally(done?: (() => void) | null): Promise<T> {
    return this.#result.finally(done);
  }
}
