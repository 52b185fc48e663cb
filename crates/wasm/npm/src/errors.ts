/** The errors of this package. Each says what happened, to which thing; `code` is for programs. */
import { read } from "./json.js";

/** What is known of an error beside its sentence. */
export interface ErrorDetails {
  /** A stable name, such as `refused`, `timed_out`, `no_checkpoint`. */
  readonly code?: string;
  /** The status that the server answered with, if it answered with one that is not a success. */
  readonly status?: number;
  /** Whose fault it is: `user` for what another try cannot mend, `server` for what the service did. */
  readonly category?: ErrorCategory;
  /** Whether the same call, made again later, may go through. */
  readonly retryable?: boolean;
  /** The request's id, where the server had given one. */
  readonly requestId?: string;
  /** What was being done, such as `optim_step of run s:train:0`. */
  readonly operation?: string;
  /** The server's own words, where it gave any. */
  readonly detail?: string;
  /** Whether the server may have acted on the request, as far as can be told from here. */
  readonly mayHaveBeenSeen?: boolean;
  /** Whether the server does not have what was asked for at all. */
  readonly unsupported?: boolean;
  /** How long the server asked not to be asked again, in seconds. */
  readonly retryAfterSeconds?: number;
  /** What to do about it, where there is more to say than the message does. */
  readonly hint?: string;
  /** What it came from. */
  readonly cause?: unknown;
}

/** Whose fault an error is. */
export type ErrorCategory = "user" | "server" | "unknown" | (string & {});

/** Every error of this package is one of these. */
export class RetinkerError extends Error implements ErrorDetails {
  /** The class's name. */
  override readonly name: string = "RetinkerError";
  /** A stable name, such as `refused`, `timed_out`, `no_checkpoint`; `config` for calls that make no sense. */
  readonly code: string;
  /** The status that the server answered with, if it answered with one that is not a success. */
  declare readonly status?: number;
  /** Whose fault it is: `user` for what another try cannot mend, `server` for what the service did, `unknown` where nothing says. */
  readonly category: ErrorCategory;
  /** Whether the same call, made again later, may go through. */
  readonly retryable: boolean;
  /** The request's id, where the server had given one. */
  declare readonly requestId?: string;
  /** What was being done, such as `optim_step of run s:train:0`. */
  declare readonly operation?: string;
  /** The server's own words, where it gave any. */
  declare readonly detail?: string;
  /** Whether the server may have acted on the request, as far as can be told from here. */
  readonly mayHaveBeenSeen: boolean;
  /** Whether the server does not have what was asked for at all. */
  readonly unsupported: boolean;
  /** How long the server asked not to be asked again, in seconds; absent where it did not. */
  declare readonly retryAfterSeconds?: number;
  /** What to do about it, where there is more to say than the message does. */
  declare readonly hint?: string;

  /** An error with this sentence. Where nothing is said it is a `config` error of category `user`, and not retryable. */
  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = details.code ?? "config";
    this.category = details.category ?? "user";
    this.retryable = details.retryable ?? false;
    this.mayHaveBeenSeen = details.mayHaveBeenSeen ?? false;
    this.unsupported = details.unsupported ?? false;
    if (details.status !== undefined) this.status = details.status;
    if (details.requestId !== undefined) this.requestId = details.requestId;
    if (details.operation !== undefined) this.operation = details.operation;
    if (details.detail !== undefined) this.detail = details.detail;
    if (details.retryAfterSeconds !== undefined) this.retryAfterSeconds = details.retryAfterSeconds;
    if (details.hint !== undefined) this.hint = details.hint;
  }
}

/** A call that makes no sense as it was given. Nothing was sent. */
export class ConfigError extends RetinkerError {
  /** The class's name. */
  override readonly name = "ConfigError";
}

/** No connection, one that broke off, or no answer in time. `mayHaveBeenSeen` says whether the server may have acted. */
export class ConnectionError extends RetinkerError {
  /** The class's name. */
  override readonly name = "ConnectionError";
}

/** The server answered with a status that is not a success, or with what is none of the protocol's. */
export class StatusError extends RetinkerError {
  /** The class's name. */
  override readonly name = "StatusError";
}

/** A request that was accepted, and then failed or was forgotten. `category` says whose fault that was. */
export class RequestFailedError extends RetinkerError {
  /** The class's name. */
  override readonly name = "RequestFailedError";
}

/** Not sent, because something before it did not go through, or its client was given away. */
export class CancelledError extends RetinkerError {
  /** The class's name. */
  override readonly name = "CancelledError";
}

/** The order of a run's operations can no longer be known, so none is sent: restore the run. */
export class PoisonedError extends RetinkerError {
  /** The class's name. */
  override readonly name = "PoisonedError";
  /** The run. */
  readonly runId: string;
  /** The last checkpoint that the client has saved or loaded; the run may have others. Absent = the client knows of none. */
  declare readonly checkpoint?: string;

  /** An error with this sentence, about this run. */
  constructor(
    message: string,
    details: ErrorDetails & {
      /** The run. */
      readonly runId: string;
      /** The last checkpoint that the client has saved or loaded; absent = it knows of none. */
      readonly checkpoint?: string;
    },
  ) {
    super(message, details);
    this.runId = details.runId;
    if (details.checkpoint !== undefined) this.checkpoint = details.checkpoint;
  }
}

/** A restore that cannot be planned, begun or carried out; of code `unrecovered`: a run that could not be made anew by itself. */
export class RecoveryError extends RetinkerError {
  /** The class's name. */
  override readonly name = "RecoveryError";
  /** The checkpoints that were looked at, with why each cannot be used. */
  readonly rejected: readonly {
    /** Its path. */
    readonly tinkerPath: string;
    /** Why it cannot be used. */
    readonly reason: string;
  }[];
  /** The restore that it is about, where there is one. */
  readonly restoreId?: string;

  /** An error with this sentence. */
  constructor(
    message: string,
    details: ErrorDetails & {
      /** The checkpoints that were looked at; none where nothing is said. */
      readonly rejected?: readonly {
        /** Its path. */
        readonly tinkerPath: string;
        /** Why it cannot be used. */
        readonly reason: string;
      }[];
      /** The restore that it is about. */
      readonly restoreId?: string;
    } = {},
  ) {
    super(message, details);
    this.rejected = details.rejected ?? [];
    if (details.restoreId !== undefined) this.restoreId = details.restoreId;
  }
}

/** What a host refused or could not do; `code` is the host's, such as `run_not_found`. */
export class HostError extends RetinkerError {
  /** The class's name. */
  override readonly name = "HostError";
}

/** A fault of this package: its wasm panicked, and takes no calls any more. Load the program anew, and tell us. */
export class PanickedError extends RetinkerError {
  /** The class's name. */
  override readonly name = "PanickedError";

  /** An error that tells what was panicked about. */
  constructor(message: string) {
    super(`retinker's wasm panicked, and can do nothing more: ${message}`, { code: "panicked", category: "unknown" });
  }
}

/** What the wasm tells of a failure. */
interface Told extends ErrorDetails {
  readonly of: "service" | "recovery" | "host";
  readonly code: string;
  readonly message: string;
  readonly runId?: string;
  readonly checkpoint?: string;
  readonly restoreId?: string;
  readonly rejected?: readonly { readonly tinkerPath: string; readonly reason: string }[];
  readonly cause?: Told;
}

/**
 * What is thrown for what the wasm has thrown. A signal's reason, and what is none of ours, stays as it is.
 *
 * @internal
 */
export function errorOf(thrown: unknown): unknown {
  if (typeof thrown !== "object" || thrown === null || !("retinkerFailure" in thrown)) return thrown;
  return made(read<Told>(thrown.retinkerFailure as string));
}

function made(told: Told): RetinkerError {
  const { message, cause, ...rest } = told;
  const details = cause === undefined ? rest : { ...rest, cause: made(cause) };
  if (told.of === "host") return new HostError(message, details);
  if (told.of === "recovery") return new RecoveryError(message, details);
  switch (told.code) {
    case "config":
      return new ConfigError(message, details);
    case "cancelled":
      return new CancelledError(message, details);
    case "never_sent":
    case "may_have_been_sent":
    case "timed_out":
      return new ConnectionError(message, details);
    case "failed":
    case "expired":
      return new RequestFailedError(message, details);
    case "unrecovered":
      return new RecoveryError(message, details);
    case "poisoned":
      return new PoisonedError(message, { ...details, runId: told.runId ?? "" });
    default:
      return new StatusError(message, details);
  }
}
