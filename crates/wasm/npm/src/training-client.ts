import type { Client, Submitted, Training } from "#wasm";
import { Connected } from "./connected.js";
import { connection } from "./connection.js";
import { batch, type Datum, type ForwardBackwardOutput } from "./data.js";
import { errorOf } from "./errors.js";
import { type Freed, Handle, type SharedHandle } from "./handle.js";
import { read } from "./json.js";
import { type CallOptions, type ClientOptions, known, wire } from "./options.js";
import { PendingResult } from "./pending.js";
import { SamplingClient } from "./sampling-client.js";
import type { Attachment, ModelInfo, UserMetadata } from "./types.js";

/** A loss that the service knows. */
export type LossFn = "cross_entropy" | "importance_sampling" | "ppo" | "cispo" | "dro" | (string & {});

/** A pass over a batch. */
export interface PassOptions extends CallOptions {
  /** Settings of the loss: numbers and texts. */
  readonly lossFnConfig?: Readonly<Record<string, number | string>> | undefined;
}

/** What a loss of the program's own says of a batch. */
export interface CustomLoss {
  /** The loss of the whole batch. */
  readonly loss: number;
  /** For each example how the loss changes with each of its log-probabilities, in their order. */
  readonly gradients: readonly (Float32Array | readonly number[])[];
  /** More to be reported, by names that end in how they are reduced, such as `kl:mean`. */
  readonly metrics?: Readonly<Record<string, number>> | undefined;
}

/** A loss of the program's own: called once with the batch, and for each example with the log-probabilities (nats) of its targets. */
export type CustomLossFn = (data: readonly Datum[], logprobs: readonly Float32Array[]) => CustomLoss;

/** The loss as the wasm calls it: what it says as a list, or why it says nothing. */
function called(data: readonly Datum[], lossFn: CustomLossFn): (logprobs: Float32Array[]) => unknown {
  return (logprobs) => {
    try {
      const { loss, gradients, metrics = {} } = lossFn(data, logprobs);
      if (typeof loss !== "number" || !Array.isArray(gradients)) {
        return "the loss gave no { loss, gradients }: it gives them at once, and not as a promise";
      }
      const typed = gradients.map((one) => (one instanceof Float32Array ? one : Float32Array.from(one)));
      return [loss, typed, JSON.stringify(metrics)];
    } catch (error) {
      return `the loss failed: ${error}`;
    }
  };
}

/** AdamW's settings of one step; the defaults are the official SDK's. */
export interface AdamParams {
  /** The step's size; 1e-4. */
  readonly learningRate?: number | undefined;
  /** Decay of the first moment; 0.9. */
  readonly beta1?: number | undefined;
  /** Decay of the second moment; 0.95. */
  readonly beta2?: number | undefined;
  /** Added to the denominator; 1e-12. */
  readonly eps?: number | undefined;
  /** Decoupled weight decay; 0. */
  readonly weightDecay?: number | undefined;
  /** Bound on the gradient's global norm; 0, which is none. */
  readonly gradClipNorm?: number | undefined;
}

/** Dimuon's settings of one step. */
export interface DimuonParams {
  /** Which optimizer these are for. */
  readonly type: "dimuon";
  /** The step's size; not negative. */
  readonly learningRate: number;
  /** Bound on the gradient's global norm; 0, which is none. */
  readonly gradClipNorm?: number | undefined;
  /** Decay of the momentum, from 0 to less than 1; 0.9. */
  readonly beta1?: number | undefined;
}

/** How a checkpoint is saved. */
export interface SaveOptions extends CallOptions {
  /** Seconds until the server deletes it; absent = never. */
  readonly ttlSeconds?: number | undefined;
  /** The checkpoint's labels. */
  readonly userMetadata?: UserMetadata | undefined;
}

/** What was saved. */
export interface Saved {
  /** The checkpoint's `tinker://` path. */
  readonly path: string;
}

/** What an optimizer step gives. */
export interface OptimStepResult {
  /** What the server measured, by its own names. */
  readonly metrics: Readonly<Record<string, number>>;
}

/** Where a loaded run is. */
export interface Loaded {
  /** The path that was loaded; absent = not said. */
  readonly path?: string;
  /** The run that holds it now; absent = not said. */
  readonly modelId?: string;
}

/**
 * What a client is made of, and what it lets go of beside.
 *
 * @internal
 */
export interface Parts {
  readonly client: SharedHandle<Client>;
  readonly training: Handle<Training>;
  readonly beside?: Freed;
}

/**
 * Trains a run. Operations are carried out in the order in which they are called, whether or not they are awaited in between.
 * Once that order can no longer be known, every operation is rejected with a {@link PoisonedError}: restore the run then.
 */
export class TrainingClient extends Connected {
  readonly #training: Handle<Training>;

  /** Made by a {@link ServiceClient}, or by {@link attach}. */
  protected constructor(parts: object) {
    const { client, training, beside } = parts as Parts;
    super(client, { free: () => [training, beside].forEach((each) => each?.free()) });
    this.#training = training;
  }

  /** @internal */
  static _of(client: SharedHandle<Client>, training: Training): TrainingClient {
    return new TrainingClient({ client, training: Handle.of(training) } satisfies Parts);
  }

  /**
   * Goes on with a run that another program, or a restore, has made. Its session is kept alive from now on. Nobody else may train
   * the run meanwhile.
   */
  static async attach(attachment: Attachment, of: ClientOptions | Connected = {}): Promise<TrainingClient> {
    const client = connection(of);
    const { sessionId, modelId, nextSeqId } = attachment;
    const training = await client.call<Training>(async (raw, wasm) => wasm.Training.attach(raw, sessionId, modelId, nextSeqId));
    return TrainingClient._of(client, training);
  }

  /** The run, by the id that the console and {@link RestClient} know it by. */
  get modelId(): string {
    return this.#training.ask((training) => training.modelId);
  }

  /** The session that the run belongs to. */
  get sessionId(): string {
    return this.#training.ask((training) => training.sessionId);
  }

  /** Why the run's order is lost, if it is. */
  get poisoned(): Error | undefined {
    return errorOf(this.#training.ask((training) => training.poisoned())) as Error | undefined;
  }

  /** The run's page in the console of the hosted service. */
  getConsoleUrl(): string {
    return this.#training.ask((training) => training.consoleUrl);
  }

  /** How somebody else could go on with the run now. To give it away use {@link handOver}. */
  get attachment(): Attachment {
    return read(this.#training.ask((training) => training.attachment()));
  }

  /** Submits an operation, unless the signal was given before. */
  #submit<T, R>(begin: (training: Training) => Submitted, options: CallOptions, show: (result: R) => T): PendingResult<T> {
    return PendingResult._of(() => this.#training.ask(begin), options, show);
  }

  /** A forward and backward pass: the gradient adds up until the next {@link optimStep}. */
  forwardBackward(data: readonly Datum[], lossFn: LossFn, options: PassOptions = {}): PendingResult<ForwardBackwardOutput> {
    return this.#pass(data, lossFn, options, false);
  }

  /**
   * The same under a loss of the program's own: a forward pass, whose log-probabilities `lossFn` is called with, and a backward pass with
   * the gradients that it gives. Only `target_tokens` and `weights` of the examples are sent. What is called after it is sent after both
   * passes; if the loss fails the rest of it is not sent, its result is a {@link ConfigError}, and the run goes on. `loss:sum` of the
   * metrics is the program's loss.
   */
  forwardBackwardCustom(data: readonly Datum[], lossFn: CustomLossFn, options: CallOptions = {}): PendingResult<ForwardBackwardOutput> {
    known("forwardBackwardCustom", options, ["signal"]);
    const examples = batch(data);
    const loss = called(data, lossFn);
    return this.#submit((training) => training.passCustom(examples, loss), options, (output: ForwardBackwardOutput) => output);
  }

  /** A forward pass without a gradient. */
  forward(data: readonly Datum[], lossFn: LossFn, options: PassOptions = {}): PendingResult<ForwardBackwardOutput> {
    return this.#pass(data, lossFn, options, true);
  }

  #pass(data: readonly Datum[], lossFn: LossFn, options: PassOptions, forward: boolean): PendingResult<ForwardBackwardOutput> {
    known("a pass", options, ["lossFnConfig", "signal"]);
    const examples = batch(data);
    const config = JSON.stringify(options.lossFnConfig ?? {});
    return this.#submit((training) => training.pass(examples, lossFn, config, forward), options, (output: ForwardBackwardOutput) => output);
  }

  /** One step of the optimizer over the gradients added up. */
  optimStep(params: AdamParams | DimuonParams = {}, options: CallOptions = {}): PendingResult<OptimStepResult> {
    known("optimStep", params, [
      "type",
      "learningRate",
      "beta1",
      "beta2",
      "eps",
      "weightDecay",
      "gradClipNorm",
    ]);
    return this.#submit((training) => training.optimStep(wire(params)), options, ({ metrics = {} }: Partial<OptimStepResult>) => ({ metrics }));
  }

  /** Saves weights and optimizer state under a name. */
  saveState(
    name: string,
    options: SaveOptions & {
      /** Whether to replace a checkpoint of the same name; false. */
      readonly overwrite?: boolean | undefined;
    } = {},
  ): PendingResult<Saved> {
    const { signal, ...rest } = known("saveState", options, ["ttlSeconds", "overwrite", "userMetadata", "signal"]);
    return this.#submit((training) => training.saveState(name, wire(rest)), { signal }, (saved: Saved) => saved);
  }

  /** Saves weights to sample from under a name. */
  saveWeightsForSampler(name: string, options: SaveOptions = {}): PendingResult<Saved> {
    const { signal, ...rest } = known("saveWeightsForSampler", options, ["ttlSeconds", "userMetadata", "signal"]);
    return this.#submit((training) => training.saveForSampler(name, wire(rest)), { signal }, (saved: Saved) => ({ path: saved.path }));
  }

  /** Saves weights under a name in the layout that `peft` loads. */
  saveWeightsExternal(
    name: string,
    options: CallOptions & {
      /** Seconds until the server deletes them; absent = never. */
      readonly ttlSeconds?: number | undefined;
      /** Who can read the files, as recipients of `age`, at most 10; absent = they are not encrypted. */
      readonly ageEncryptionRecipients?: readonly string[] | undefined;
    } = {},
  ): PendingResult<Saved> {
    const { signal, ...rest } = known("saveWeightsExternal", options, ["ttlSeconds", "ageEncryptionRecipients", "signal"]);
    return this.#submit((training) => training.saveExternal(name, wire(rest)), { signal }, (saved: Saved) => saved);
  }

  /** Saves the weights as they are now for a sampler, and gives a client of it. They are gone with the session. */
  saveWeightsAndGetSamplingClient(options: CallOptions = {}): PendingResult<SamplingClient> {
    return this.#sampler(false, options);
  }

  /** The same with weights that follow the run: every later call gives them to the samplers made before, too. */
  saveWeightsAndGetInflightSamplingClient(options: CallOptions = {}): PendingResult<SamplingClient> {
    return this.#sampler(true, options);
  }

  #sampler(inflight: boolean, options: CallOptions): PendingResult<SamplingClient> {
    return this.#submit((training) => training.saveAndSample(inflight), options, (sampling: Parameters<typeof SamplingClient._of>[1]) =>
      SamplingClient._of(this._client, sampling),
    );
  }

  /** A client of a sampler checkpoint, in the run's session. */
  async createSamplingClient(path: string, options: CallOptions = {}): Promise<SamplingClient> {
    const { signal } = known("createSamplingClient", options, ["signal"]);
    const sampling = await this.#training.call<Parameters<typeof SamplingClient._of>[1]>((training) =>
      training.createSampling(path, signal),
    );
    return SamplingClient._of(this._client, sampling);
  }

  /** Loads a checkpoint's weights, with a cold optimizer. */
  loadState(
    path: string,
    options: CallOptions & {
      /** Leave to load another account's checkpoint. */
      readonly weightsAccessToken?: string | undefined;
    } = {},
  ): PendingResult<Loaded> {
    return this.#load(path, false, options);
  }

  /** Loads a checkpoint's weights and optimizer state. */
  loadStateWithOptimizer(
    path: string,
    options: CallOptions & {
      /** Leave to load another account's checkpoint. */
      readonly weightsAccessToken?: string | undefined;
    } = {},
  ): PendingResult<Loaded> {
    return this.#load(path, true, options);
  }

  #load(
    path: string,
    optimizer: boolean,
    options: CallOptions & { readonly weightsAccessToken?: string | undefined },
  ): PendingResult<Loaded> {
    const { weightsAccessToken, signal } = known("loading a checkpoint", options, ["weightsAccessToken", "signal"]);
    return this.#submit((training) => training.load(path, optimizer, weightsAccessToken), { signal }, (loaded: Loaded) => loaded);
  }

  /** What the run is made of. */
  async getInfo(options: CallOptions = {}): Promise<ModelInfo> {
    const { signal } = known("getInfo", options, ["signal"]);
    return this.#training.call((training) => training.info(signal));
  }

  /**
   * Gives the run away: waits until every operation called so far was accepted, and resolves to what somebody else needs to go on.
   * This client takes no operation afterwards.
   */
  async handOver(options: CallOptions = {}): Promise<Attachment> {
    const { signal } = known("handOver", options, ["signal"]);
    return this.#training.call((training) => training.handOver(signal));
  }
}
