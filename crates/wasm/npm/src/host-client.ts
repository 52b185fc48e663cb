import { platform } from "#platform";
import type { Host } from "#wasm";
import { Handle } from "./handle.js";
import type {
  Activity,
  ConnectionInfo,
  HandOver,
  HostEvent,
  HostStatus,
  Incident,
  MonitorState,
  RunDetail,
  RunsQuery,
  RunWindow,
} from "./host-types.js";
import { type CallOptions, type ClientOptions, known, wire } from "./options.js";
import { RestorePlan, request } from "./plan.js";
import type { PlanOptions, RestoreRecord } from "./recovery-types.js";
import { values } from "./stream.js";

/** A host, and who asks. */
export interface HostOptions {
  /** Where it is, such as `http://127.0.0.1:8787`. */
  readonly baseUrl: string;
  /** The token that it printed at its start. */
  readonly token: string;
  /** Which of its connections is meant; its first where none is named. */
  readonly connection?: string | undefined;
  /** What sends requests, in the place of the global `fetch`; in Node in the place of its `node:http`. */
  readonly fetch?: ClientOptions["fetch"];
}

/** A host of retinker: it watches all runs of a service, and its restores outlive the programs that ask for them. */
export class HostClient {
  readonly #host: Handle<Host>;

  /** A client of this host. Sends nothing. */
  constructor(options: HostOptions) {
    const { baseUrl, token, connection, fetch = platform.fetch } = known("a host's client", options, ["baseUrl", "token", "connection", "fetch"]);
    this.#host = new Handle((wasm) => new wasm.Host(baseUrl, token, connection, fetch));
  }

  /** How the host and its service are. */
  async status(options: CallOptions = {}): Promise<HostStatus> {
    const { signal } = known("status", options, ["signal"]);
    return this.#host.call((host) => host.status(signal));
  }

  /** The services that the host can stand before; the first is the one that is meant when none is named. */
  async connections(options: CallOptions = {}): Promise<ConnectionInfo[]> {
    const { signal } = known("connections", options, ["signal"]);
    const { connections } = await this.#host.call<{ connections: ConnectionInfo[] }>((host) => host.connections(signal));
    return connections;
  }

  /** A window of the list of runs. */
  runs({ signal, ...query }: CallOptions & RunsQuery = {}): Promise<RunWindow> {
    known("runs", query, ["health", "q", "sort", "reverse", "offset", "limit"]);
    return this.#host.call((host) => host.runs(wire(query), signal));
  }

  /** Everything about one run. */
  async run(runId: string, options: CallOptions = {}): Promise<RunDetail> {
    const { signal } = known("run", options, ["signal"]);
    return this.#host.call((host) => host.run(runId, signal));
  }

  /** What a restore would do. Rejects with a {@link RecoveryError} where there can be none. */
  async plan(runId: string, { signal, ...options }: CallOptions & PlanOptions = {}): Promise<RestorePlan> {
    const wanted = request(runId, options);
    return RestorePlan._of(await this.#host.text((host) => host.plan(wanted, signal)));
  }

  /** Starts a restore exactly as planned. Asking again is harmless: `already` says that it had been started before. */
  async startRestore(
    plan: RestorePlan,
    options: CallOptions = {},
  ): Promise<{
    /** The restore. */
    readonly restore: RestoreRecord;
    /** Whether it had been started before, by another program or click: nothing was started now. */
    readonly already: boolean;
  }> {
    const { signal } = known("startRestore", options, ["signal"]);
    return this.#host.call((host) => host.startRestore(plan._kept, signal));
  }

  /** All restores, newest first. */
  async restores(options: CallOptions = {}): Promise<RestoreRecord[]> {
    const { signal } = known("restores", options, ["signal"]);
    const { restores } = await this.#host.call<{ restores: RestoreRecord[] }>((host) => host.restores(signal));
    return restores;
  }

  /** One restore. */
  async restore(restoreId: string, options: CallOptions = {}): Promise<RestoreRecord> {
    const { signal } = known("restore", options, ["signal"]);
    return this.#host.call((host) => host.restore(restoreId, signal));
  }

  /** Stops a restore that is not done yet, whoever carries it out. */
  async cancelRestore(restoreId: string, options: CallOptions = {}): Promise<RestoreRecord> {
    const { signal } = known("cancelRestore", options, ["signal"]);
    return this.#host.call((host) => host.cancel(restoreId, signal));
  }

  /** Takes a restored run over: `TrainingClient.attach(handOver.attachment)`. */
  async handOver(restoreId: string, options: CallOptions = {}): Promise<HandOver> {
    const { signal } = known("handOver", options, ["signal"]);
    return this.#host.call((host) => host.handOver(restoreId, signal));
  }

  /** Which runs failed together, newest first. */
  async incidents(options: CallOptions = {}): Promise<Incident[]> {
    const { signal } = known("incidents", options, ["signal"]);
    const { incidents } = await this.#host.call<{ incidents: Incident[] }>((host) => host.incidents(signal));
    return incidents;
  }

  /** What was done about lost runs and with the service's things. */
  async activity(
    options: CallOptions & {
      /** How many of each kind, the newest first; 100. */
      readonly newest?: number | undefined;
    } = {},
  ): Promise<Activity> {
    const { newest = 100, signal } = known("activity", options, ["newest", "signal"]);
    return this.#host.call((host) => host.activity(newest, signal));
  }

  /** Whether restores begin by themselves. */
  async monitor(options: CallOptions = {}): Promise<MonitorState> {
    const { signal } = known("monitor", options, ["signal"]);
    return this.#host.call((host) => host.monitor(signal));
  }

  /** Pauses or resumes restores that begin by themselves, for all monitors of the host's journal. */
  async setMonitor(gate: "open" | "paused", options: CallOptions = {}): Promise<MonitorState> {
    const { signal } = known("setMonitor", options, ["signal"]);
    return this.#host.call((host) => host.setMonitor(gate === "paused", signal));
  }

  /** What changes, as it happens. Ends with an error when the connection does: read the window again then, and listen anew. */
  events(options: CallOptions = {}): AsyncIterableIterator<HostEvent> {
    const { signal } = known("events", options, ["signal"]);
    return values<HostEvent>((wasm) => this.#host.of(wasm).events(), { signal });
  }

  /** Lets go of what the wasm holds. A call afterwards is refused. */
  [Symbol.dispose](): void {
    this.#host.free();
  }

  /** The same, where `using` is not to be had. */
  dispose(): void {
    this.#host.free();
  }
}
