import type { Recovering, Sampling, Service, Training } from "#wasm";
import { Connected } from "./connected.js";
import { connection } from "./connection.js";
import { ConfigError } from "./errors.js";
import { Handle } from "./handle.js";
import { type CallOptions, type ClientOptions, CLIENT, known, wire } from "./options.js";
import { RecoveringTrainingClient, type RedoOptions, rule } from "./recovering-client.js";
import { LogRecords } from "./redo-logs.js";
import { RestClient } from "./rest-client.js";
import { SamplingClient } from "./sampling-client.js";
import { TrainingClient } from "./training-client.js";
import type { FinishReason, OptimizerConfig, ServerCapabilities, UserMetadata } from "./types.js";

/** What a session is opened with. */
export interface SessionOptions {
  /** The session's labels without values. */
  readonly tags?: readonly string[] | undefined;
  /** The session's labels with values. */
  readonly userMetadata?: UserMetadata | undefined;
  /** The project that the session belongs to. */
  readonly projectId?: string | undefined;
  /** The session's name for people. */
  readonly displayName?: string | undefined;
  /** Whether the service is told how the session and its clients fare; false. */
  readonly telemetry?: boolean | undefined;
}

/** What a run is made with, beside its adapter or checkpoint. */
export interface RunOptions extends CallOptions {
  /** The run's labels; `name` is its name for people. */
  readonly userMetadata?: UserMetadata | undefined;
}

/** A new run's adapter. */
export interface LoraOptions extends RunOptions {
  /** The base model that the adapter is trained on. */
  readonly baseModel: string;
  /** The adapter's rank; 32. */
  readonly rank?: number | undefined;
  /** Where the initial weights come from; one is drawn where none is said. */
  readonly seed?: number | undefined;
  /** Whether the MLP projections are trained; true. */
  readonly trainMlp?: boolean | undefined;
  /** Whether the attention projections are trained; true. */
  readonly trainAttn?: boolean | undefined;
  /** Whether the unembedding is trained; true. */
  readonly trainUnembed?: boolean | undefined;
  /** Which optimizer the run is trained with; AdamW where nothing is said. */
  readonly optimizerConfig?: OptimizerConfig | undefined;
}

/** A run from a checkpoint. */
export interface FromStateOptions extends RunOptions {
  /** Another base model that the checkpoint fits; absent = the checkpoint's own. */
  readonly baseModel?: string | undefined;
  /** Leave to load another account's checkpoint. */
  readonly weightsAccessToken?: string | undefined;
}

const RUN = ["userMetadata", "signal"] as const;
const LORA = [...RUN, "baseModel", "rank", "seed", "trainMlp", "trainAttn", "trainUnembed", "optimizerConfig"] as const;

/**
 * Makes training and sampling clients. Opens its session when it is first needed, and keeps it alive until it and the clients
 * made by it are disposed of, or until {@link finish}.
 */
export class ServiceClient extends Connected {
  readonly #service: Handle<Service>;

  /** A client of this service. Sends nothing. */
  constructor(options: ClientOptions & SessionOptions = {}) {
    const { tags, userMetadata, projectId, displayName, telemetry, ...rest } = known("a service client", options, [...CLIENT, "tags", "userMetadata", "projectId", "displayName", "telemetry"]);
    const client = connection(rest);
    const session = wire({ tags, userMetadata, projectId, displayName, telemetry });
    const service = new Handle((wasm) => new wasm.Service(client.of(wasm), session));
    super(client, service);
    this.#service = service;
  }

  /** A client for what is on the server. */
  createRestClient(): RestClient {
    return new RestClient(this);
  }

  /** The base models that the server offers. */
  async getServerCapabilities(options: CallOptions = {}): Promise<ServerCapabilities> {
    const rest = this.createRestClient();
    try {
      return await rest.getServerCapabilities(options);
    } finally {
      rest.dispose();
    }
  }

  /** The session's id; opens the session if there is none yet. */
  async sessionId(options: CallOptions = {}): Promise<string> {
    const { signal } = known("sessionId", options, ["signal"]);
    return this.#service.call((service) => service.sessionId(signal));
  }

  /** Makes a run, and a client that trains it. */
  async createLoraTrainingClient(options: LoraOptions): Promise<TrainingClient> {
    const { baseModel, rank = 32, userMetadata, optimizerConfig, signal, ...adapter } = known("createLoraTrainingClient", options, LORA);
    const lora = wire({ rank, ...adapter });
    const run = wire({ userMetadata, optimizerConfig });
    return this.#made(await this.#service.call((service) => service.createLora(baseModel, lora, run, signal)));
  }

  /** Makes a run that recovers by itself, or goes on with the one that is in the log of that name, and a client of it. */
  async createRecoveringTrainingClient(options: LoraOptions & RedoOptions): Promise<RecoveringTrainingClient> {
    const { baseModel, rank = 32, userMetadata, optimizerConfig, checkpoints = {}, tolerance, boundBytes, log, notice, signal, ...adapter } = known(
      "createRecoveringTrainingClient",
      options,
      [...LORA, "checkpoints", "tolerance", "boundBytes", "log", "notice"],
    );
    const { everySteps, everySeconds, onImprovement, atEnd, keep } = known("checkpoints", checkpoints, ["everySteps", "everySeconds", "onImprovement", "atEnd", "keep"]);
    const lora = wire({ rank, ...adapter });
    const kept = wire({ userMetadata, optimizerConfig, everySteps, everySeconds, ...onImprovement, atEnd, keep: keep && rule(keep), tolerance, boundBytes });
    const records = log === undefined ? undefined : await LogRecords.open(log);
    try {
      const redo = await this.#service.call<Recovering>((service, wasm) =>
        wasm.Recovering.lora(service, baseModel, lora, kept, records, signal),
      );
      return RecoveringTrainingClient._recovering(this._client, redo, notice);
    } finally {
      records?.unlessTaken();
    }
  }

  /** Makes a run that starts from a checkpoint's weights, with a cold optimizer. `path` is a training checkpoint's. */
  createTrainingClientFromState(
    path: string,
    options: FromStateOptions & {
      /** Which optimizer the run is trained with; AdamW where nothing is said. */
      readonly optimizerConfig?: OptimizerConfig | undefined;
    } = {},
  ): Promise<TrainingClient> {
    return this.#from(path, false, options);
  }

  /** Makes a run that goes on from a checkpoint: weights and optimizer state. */
  createTrainingClientFromStateWithOptimizer(path: string, options: FromStateOptions = {}): Promise<TrainingClient> {
    return this.#from(path, true, options);
  }

  async #from(
    path: string,
    optimizer: boolean,
    options: FromStateOptions & { readonly optimizerConfig?: OptimizerConfig | undefined },
  ): Promise<TrainingClient> {
    const { signal, ...rest } = known("a run from a checkpoint", options, [...RUN, "baseModel", "weightsAccessToken", "optimizerConfig"]);
    return this.#made(await this.#service.call((service) => service.createFromState(path, optimizer, wire(rest), signal)));
  }

  #made(training: Training): TrainingClient {
    return TrainingClient._of(this._client, training);
  }

  /** Makes a sampler of a base model, or of a sampler checkpoint; of both: of a checkpoint on another base model that it fits. */
  async createSamplingClient(
    options: CallOptions & {
      /** The base model that is sampled from; absent = the checkpoint's own. */
      readonly baseModel?: string | undefined;
      /** The sampler checkpoint that is sampled from, by its `tinker://` path; absent = the base model itself. */
      readonly modelPath?: string | undefined;
    },
  ): Promise<SamplingClient> {
    const { baseModel, modelPath, signal } = known("createSamplingClient", options, ["baseModel", "modelPath", "signal"]);
    if (baseModel === undefined && modelPath === undefined) {
      throw new ConfigError("createSamplingClient needs a baseModel or a modelPath");
    }
    const sampling = await this.#service.call<Sampling>((service) => service.createSampling(baseModel, modelPath, signal));
    return SamplingClient._of(this._client, sampling);
  }

  /** The session's page in the console of the hosted service; opens the session if there is none yet. */
  async getConsoleUrl(options: CallOptions = {}): Promise<string> {
    const { signal } = known("getConsoleUrl", options, ["signal"]);
    return this.#service.call((service) => service.consoleUrl(signal));
  }

  /** Ends the session: its runs can be trained no more, and what they have not saved is lost. Does nothing if none was opened. */
  async finish(
    options: CallOptions & {
      /** How the session ended; `success`. */
      readonly reason?: FinishReason | undefined;
      /** A sentence for people; none. */
      readonly detail?: string | undefined;
    } = {},
  ): Promise<void> {
    const { reason = "success", detail, signal } = known("finish", options, ["reason", "detail", "signal"]);
    return this.#service.call((service) => service.finish(reason, detail, signal));
  }

  /** Finishes the session and lets go of it: what `await using` does. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this._isDisposed) return;
    try {
      await this.finish();
    } finally {
      this.dispose();
    }
  }
}
