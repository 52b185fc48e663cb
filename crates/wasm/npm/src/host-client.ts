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
  readonly fetch?: ClientOptions["fetch"];
}

/** A host of retinker: it watches all runs of a service, and its restores outlive the programs that ask for them. */
export class HostClient {
  readonly #host: Handle<Host>;

  /** A client of this host. Sends nothing. */
  constructor(options: HostOptions) {
    known("a host's client", options, ["baseUrl", "token", "connection", "fetch"]);
    const { baseUrl, token, connection, fetch } = options;
    this.#host = new Handle((wasm) => new wasm.Host(baseUrl, token, connection, fetch));
  }

  /** How the host and its service are. */
  status({ signal }: CallOptions = {}): Promise<HostStatus> {
    return this.#host.call((host) => host.status(signal));
  }

  /** The services that the host can stand before; the first is the one that is meant when none is named. */
  async connections({ signal }: CallOptions = {}): Promise<ConnectionInfo[]> {
    const { connections } = await this.#host.call<{ connections: ConnectionInfo[] }>((host) => host.connections(signal));
    return connections;
  }

  /** A window of the list of runs. */
  runs({ signal, ...query }: CallOptions & RunsQuery = {}): Promise<RunWindow> {
    known("runs", query, ["health", "q", "sort", "reverse", "offset", "limit"]);
    return this.#host.call((host) => host.runs(wire(query), signal));
  }

  /** Everything about one run. */
  run(runId: string, { signal }: CallOptions = {}): Promise<RunDetail> {
    return this.#host.call((host) => host.run(runId, signal));
  }

  /** What a restore would do. Rejects with a {@link RecoveryError} where there can be none. */
  async plan(runId: string, { signal, ...options }: CallOptions & PlanOptions = {}): Promise<RestorePlan> {
    const wanted = request(runId, options);
    return RestorePlan._of(await this.#host.text((host) => host.plan(wanted, signal)));
  }

  /** Starts a restore exactly as planned. Asking again is harmless: `already` says that it had been started before. */
  startRestore(plan: RestorePlan, { signal }: CallOptions = {}): Promise<{ readonly restore: RestoreRecord; readonly already: boolean }> {
    return this.#host.call((host) => host.startRestore(plan._kept, signal));
  }

  /** All restores, newest first. */
  async restores({ signal }: CallOptions = {}): Promise<RestoreRecord[]> {
    const { restores } = await this.#host.call<{ restores: RestoreRecord[] }>((host) => host.restores(signal));
    return restores;
  }

  /** One restore. */
  restore(restoreId: string, { signal }: CallOptions = {}): Promise<RestoreRecord> {
    return this.#host.call((host) => host.restore(restoreId, signal));
  }

  /** Stops a restore that is not done yet, whoever carries it out. */
  cancelRestore(restoreId: string, { signal }: CallOptions = {}): Promise<RestoreRecord> {
    return this.#host.call((host) => host.cancel(restoreId, signal));
  }

  /** Takes a restored run over: `TrainingClient.attach(handOver.attachment)`. */
  handOver(restoreId: string, { signal }: CallOptions = {}): Promise<HandOver> {
    return this.#host.call((host) => host.handOver(restoreId, signal));
  }

  /** Which runs failed together, newest first. */
  async incidents({ signal }: CallOptions = {}): Promise<Incident[]> {
    const { incidents } = await this.#host.call<{ incidents: Incident[] }>((host) => host.incidents(signal));
    return incidents;
  }

  /** What was done about lost runs and with the service's things. */
  activity({ signal }: CallOptions = {}): Promise<Activity> {
    return this.#host.call((host) => host.activity(signal));
  }

  /** Whether restores begin by themselves. */
  monitor({ signal }: CallOptions = {}): Promise<MonitorState> {
    return this.#host.call((host) => host.monitor(signal));
  }

  /** Pauses or resumes restores that begin by themselves, for all monitors of the host's journal. */
  setMonitor(gate: "open" | "paused", { signal }: CallOptions = {}): Promise<MonitorState> {
    return this.#host.call((host) => host.setMonitor(gate === "paused", signal));
  }

  /** What changes, as it happens. Ends with an error when the connection does: read the window again then, and listen anew. */
  events({ signal }: CallOptions = {}): AsyncIterableIterator<HostEvent> {
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
