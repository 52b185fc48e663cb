// Starts a new run from this checkpoint, with optimizer state. Needs the npm package `retinker` and TINKER_API_KEY.
import { ServiceClient } from "retinker";

const serviceClient = new ServiceClient({ baseUrl: {base_url} });
const trainingClient = await serviceClient.createTrainingClientFromStateWithOptimizer(
  {path},
  { userMetadata: {metadata} },
);
console.log("new run:", trainingClient.modelId);
