import type { Rest } from "#wasm";
import { Connected } from "./connected.js";
import { connection } from "./connection.js";
import { Handle } from "./handle.js";
import type { Listing } from "./listing.js";
import { type CallOptions, type ClientOptions, known, wire } from "./options.js";
import { listing, pieces } from "./stream.js";
import type {
  AccessScope,
  AuditEventType,
  AuditLogEntry,
  BillingUsage,
  Checkpoint,
  CheckpointsPage,
  CheckpointStorageUsage,
  ExternalWeights,
  FinishReason,
  Sampler,
  ServerCapabilities,
  Session,
  SessionSummary,
  TrainingRun,
  TrainingRunsPage,
  UserMetadata,
  WeightsInfo,
  Whoami,
} from "./types.js";

/** One page of a list. */
export interface PageOptions extends CallOptions {
  /** How many entries; 20. Servers may give fewer. */
  readonly limit?: number | undefined;
  /** How many to pass over; 0. */
  readonly offset?: number | undefined;
}

/** A list that is read to its end. */
export interface ListingOptions extends CallOptions {
  /** How many entries are asked for at once; 100. */
  readonly pageSize?: number | undefined;
}

/** Whose things are asked for. */
export interface ScopeOptions {
  /** The caller's own, or all that the caller may see; `owned`. */
  readonly accessScope?: AccessScope | undefined;
}

/** Which sessions are looked for. All that is said must hold, but `sessionId` and `displayName` are alternatives. */
export interface SessionSearch extends CallOptions {
  /** This session. */
  readonly sessionId?: string | undefined;
  /** Sessions of these projects; absent = of all. */
  readonly projectIds?: readonly string[] | undefined;
  /** Sessions with all of these labels. */
  readonly userMetadata?: UserMetadata | undefined;
  /** Sessions whose name has every word of this, in any case. */
  readonly displayName?: string | undefined;
  /** Whose; `own`. */
  readonly owner?:
    | "own"
    | "accessible"
    | {
        /** Those of these users, one to ten of them. */
        readonly ownerUrns: readonly string[];
      }
    | undefined;
  /** Sessions in one of these states; absent = in any. */
  readonly statuses?:
    | readonly (
        | "active"
        | "cancelled"
        | "failed"
        | {
            /** Those that their client ended, in these ways. */
            readonly finished: readonly FinishReason[];
          }
      )[]
    | undefined;
  /** How many are asked for at once, from 1 to 200; 50. */
  readonly pageSize?: number | undefined;
}

/** Looks at runs, checkpoints and sessions, and manages them. Opens no session. */
export class RestClient extends Connected {
  readonly #rest: Handle<Rest>;

  /** A client of this service, or of the service of another client. Sends nothing. */
  constructor(of: ClientOptions | Connected = {}) {
    const client = connection(of);
    const rest = new Handle((wasm) => new wasm.Rest(client.of(wasm)));
    super(client, rest);
    this.#rest = rest;
  }

  /** The base models that the server offers. */
  async getServerCapabilities(options: CallOptions = {}): Promise<ServerCapabilities> {
    const { signal } = known("getServerCapabilities", options, ["signal"]);
    return this.#rest.call((rest) => rest.capabilities(signal));
  }

  /** One run. Rejects with a {@link StatusError} of status 404 for one that there is not. */
  async getTrainingRun(runId: string, options: CallOptions & ScopeOptions = {}): Promise<TrainingRun> {
    const { accessScope, signal } = known("getTrainingRun", options, ["accessScope", "signal"]);
    return this.#rest.call((rest) => rest.run(runId, accessScope, signal));
  }

  /** The run that a checkpoint belongs to. */
  async getTrainingRunByTinkerPath(path: string, options: CallOptions & ScopeOptions = {}): Promise<TrainingRun> {
    const { accessScope, signal } = known("getTrainingRunByTinkerPath", options, ["accessScope", "signal"]);
    return this.#rest.call((rest) => rest.runOfPath(path, accessScope, signal));
  }

  /** One page of the runs. */
  async listTrainingRuns(
    options: PageOptions &
      ScopeOptions & {
        /** Only runs of this project; absent = of all. */
        readonly projectId?: string | undefined;
      } = {},
  ): Promise<TrainingRunsPage> {
    const { limit = 20, offset = 0, accessScope, projectId, signal } = known("listTrainingRuns", options, ["limit", "offset", "accessScope", "projectId", "signal"]);
    return this.#rest.call((rest) => rest.runs(limit, offset, accessScope, projectId, signal));
  }

  /** All runs. Each comes once, whatever is made, used or deleted meanwhile; a list of several pages is read twice for that. */
  trainingRuns(
    options: ListingOptions &
      ScopeOptions & {
        /** Only runs of this project; absent = of all. */
        readonly projectId?: string | undefined;
      } = {},
  ): Listing<TrainingRun> {
    const { pageSize = 100, accessScope, projectId, ...call } = known("trainingRuns", options, ["pageSize", "accessScope", "projectId", "signal"]);
    return listing((wasm) => this.#rest.of(wasm).allRuns(pageSize, accessScope, projectId), call);
  }

  /** The checkpoints of a run. */
  async listCheckpoints(runId: string, options: CallOptions = {}): Promise<Checkpoint[]> {
    const { signal } = known("listCheckpoints", options, ["signal"]);
    const { checkpoints } = await this.#rest.call<{ checkpoints: Checkpoint[] }>((rest) => rest.checkpoints(runId, signal));
    return checkpoints;
  }

  /** One page of the checkpoints of all runs, newest first. */
  async listUserCheckpoints(options: PageOptions = {}): Promise<CheckpointsPage> {
    const { limit = 20, offset = 0, signal } = known("listUserCheckpoints", options, ["limit", "offset", "signal"]);
    return this.#rest.call((rest) => rest.userCheckpoints(limit, offset, signal));
  }

  /** The checkpoints of all runs, newest first. */
  userCheckpoints(options: ListingOptions = {}): Listing<Checkpoint> {
    const { pageSize = 100, ...call } = known("userCheckpoints", options, ["pageSize", "signal"]);
    return listing((wasm) => this.#rest.of(wasm).allUserCheckpoints(pageSize), call);
  }

  /** What a checkpoint fits. */
  async getWeightsInfoByTinkerPath(path: string, options: CallOptions = {}): Promise<WeightsInfo> {
    const { signal } = known("getWeightsInfoByTinkerPath", options, ["signal"]);
    return this.#rest.call((rest) => rest.weightsInfo(path, signal));
  }

  /** Lets a checkpoint live for so many seconds from now; `null` = for ever. */
  async setCheckpointTtlFromTinkerPath(path: string, ttlSeconds: number | null, options: CallOptions = {}): Promise<void> {
    const { signal } = known("setCheckpointTtlFromTinkerPath", options, ["signal"]);
    return this.#rest.call((rest) => rest.setTtl(path, ttlSeconds ?? undefined, signal));
  }

  /** Deletes a checkpoint, for good. */
  async deleteCheckpointFromTinkerPath(path: string, options: CallOptions = {}): Promise<void> {
    const { signal } = known("deleteCheckpointFromTinkerPath", options, ["signal"]);
    return this.#rest.call((rest) => rest.deleteCheckpoint(path, signal));
  }

  /** Lets everybody load a checkpoint and sample from it. */
  async publishCheckpointFromTinkerPath(path: string, options: CallOptions = {}): Promise<void> {
    const { signal } = known("publishCheckpointFromTinkerPath", options, ["signal"]);
    return this.#rest.call((rest) => rest.publish(path, signal));
  }

  /** Takes that back. */
  async unpublishCheckpointFromTinkerPath(path: string, options: CallOptions = {}): Promise<void> {
    const { signal } = known("unpublishCheckpointFromTinkerPath", options, ["signal"]);
    return this.#rest.call((rest) => rest.unpublish(path, signal));
  }

  /** Where an archive of a checkpoint's files can be had for a while. The address is a secret. */
  async getCheckpointArchiveUrlFromTinkerPath(path: string, options: CallOptions = {}): Promise<string> {
    const { signal } = known("getCheckpointArchiveUrlFromTinkerPath", options, ["signal"]);
    return this.#rest.call((rest) => rest.archiveAddress(path, signal));
  }

  /**
   * That archive's bytes, a piece at a time; what breaks off is gone on with, where the server can begin in the middle. To a file in
   * Node: `await pipeline(rest.downloadCheckpointArchive(path), createWriteStream("weights.tar"))`.
   *
   * Not in a page, where the service answers by a redirect: browsers tell no script where to.
   */
  downloadCheckpointArchive(path: string, options: CallOptions = {}): AsyncIterableIterator<Uint8Array> {
    const { signal } = known("downloadCheckpointArchive", options, ["signal"]);
    return pieces((wasm) => this.#rest.of(wasm).downloadArchive(path), { signal });
  }

  /** Where the files of an external checkpoint can be had for a while. */
  async getExternalWeightsUrls(path: string, options: CallOptions = {}): Promise<ExternalWeights> {
    const { signal } = known("getExternalWeightsUrls", options, ["signal"]);
    return this.#rest.call((rest) => rest.externalWeights(path, signal));
  }

  /** Copies a checkpoint into a run of its own, which cannot be trained. Gives the copy's path. */
  copyWeights(
    path: string,
    options: CallOptions & {
      /** The project that gets the copy. */
      readonly destinationProjectId?: string | undefined;
      /** For how long the copy lives, in seconds; absent = for ever. */
      readonly ttlSeconds?: number | undefined;
      /** Leave to copy another account's checkpoint. */
      readonly weightsAccessToken?: string | undefined;
    } = {},
  ): Promise<string> {
    const { destinationProjectId, ttlSeconds, weightsAccessToken, signal } = known("copyWeights", options, ["destinationProjectId", "ttlSeconds", "weightsAccessToken", "signal"]);
    return this.#rest.call((rest) => rest.copy(path, destinationProjectId, ttlSeconds, weightsAccessToken, signal));
  }

  /** One page of session ids, newest first. */
  async listSessions(options: PageOptions & ScopeOptions = {}): Promise<string[]> {
    const { limit = 20, offset = 0, accessScope, signal } = known("listSessions", options, ["limit", "offset", "accessScope", "signal"]);
    const { sessions } = await this.#rest.call<{ sessions: string[] }>((rest) => rest.sessions(limit, offset, accessScope, signal));
    return sessions;
  }

  /** All session ids, newest first. */
  sessions(options: ListingOptions & ScopeOptions = {}): Listing<string> {
    const { pageSize = 100, accessScope, ...call } = known("sessions", options, ["pageSize", "accessScope", "signal"]);
    return listing((wasm) => this.#rest.of(wasm).allSessions(pageSize, accessScope), call);
  }

  /** The runs and samplers of a session. */
  async getSession(sessionId: string, options: CallOptions & ScopeOptions = {}): Promise<Session> {
    const { accessScope, signal } = known("getSession", options, ["accessScope", "signal"]);
    return this.#rest.call((rest) => rest.session(sessionId, accessScope, signal));
  }

  /** All sessions that fit, newest first. */
  searchSessions({ signal, ...search }: SessionSearch = {}): Listing<SessionSummary> {
    const { owner = "own", statuses, pageSize, ...rest } = known("searchSessions", search, [
      "sessionId",
      "projectIds",
      "userMetadata",
      "displayName",
      "owner",
      "statuses",
      "pageSize",
    ]);
    const wanted = wire({
      ...rest,
      limit: pageSize,
      owner: typeof owner === "string" ? { type: owner } : { type: "user", owner_urns: owner.ownerUrns },
      statuses: statuses?.map((status) =>
        typeof status === "string" ? { type: status } : { type: "client_finished", reasons: status.finished },
      ),
    });
    return listing((wasm) => this.#rest.of(wasm).searchSessions(wanted), { signal });
  }

  /** Moves a session into a project. */
  async assignSessionProject(sessionId: string, projectId: string, options: CallOptions = {}): Promise<void> {
    const { signal } = known("assignSessionProject", options, ["signal"]);
    return this.#rest.call((rest) => rest.assignProject(sessionId, projectId, signal));
  }

  /** What a sampler samples from. */
  async getSampler(samplerId: string, options: CallOptions = {}): Promise<Sampler> {
    const { signal } = known("getSampler", options, ["signal"]);
    return this.#rest.call((rest) => rest.sampler(samplerId, signal));
  }

  /** Who the credential belongs to. Servers that give no tokens cannot say. */
  async whoami(options: CallOptions = {}): Promise<Whoami> {
    const { signal } = known("whoami", options, ["signal"]);
    return this.#rest.call((rest) => rest.whoami(signal));
  }

  /** What was done with the organization's things on one day (`YYYY-MM-DD`); today where none is said. */
  async getAuditLog(
    options: CallOptions & {
      /** Which events; `all`. */
      readonly eventType?: AuditEventType | undefined;
      /** Which day, as `YYYY-MM-DD`; today. */
      readonly day?: string | undefined;
    } = {},
  ): Promise<AuditLogEntry[]> {
    const { eventType = "all", day, signal } = known("getAuditLog", options, ["eventType", "day", "signal"]);
    const { entries } = await this.#rest.call<{ entries: AuditLogEntry[] }>((rest) => rest.auditLog(eventType, day, signal));
    return entries;
  }

  /** Usage between two full hours, at most 14 days apart. */
  async getBillingUsage(startingOn: Date, endingBefore: Date, options: CallOptions = {}): Promise<BillingUsage> {
    const { signal } = known("getBillingUsage", options, ["signal"]);
    return this.#rest.call((rest) => rest.billingUsage(startingOn.toISOString(), endingBefore.toISOString(), signal));
  }

  /** What checkpoints take now, in all or in one project. */
  async getCurrentCheckpointStorageUsage(
    options: CallOptions & {
      /** Only what this project's take; absent = all. */
      readonly projectId?: string | undefined;
    } = {},
  ): Promise<CheckpointStorageUsage> {
    const { projectId, signal } = known("getCurrentCheckpointStorageUsage", options, ["projectId", "signal"]);
    return this.#rest.call((rest) => rest.storageUsage(projectId, signal));
  }

  /**
   * Has a session's timeline built as a Perfetto trace, waits for it, and gives the address to download it from. The address is a
   * secret.
   */
  async exportSessionTrace(sessionId: string, options: CallOptions = {}): Promise<string> {
    const { signal } = known("exportSessionTrace", options, ["signal"]);
    return this.#rest.call((rest) => rest.exportTrace(sessionId, signal));
  }
}
