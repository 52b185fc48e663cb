// A client of the installed package, on a service of its own.
import { installed } from "./folder.mjs";
import { KEY, startService } from "./service.mjs";

/** A service, its faults, the package, and a service client of it that is let go of with the test. */
export async function opened(t) {
  const { url, fault } = await startService(t);
  const { retinker } = await installed(t);
  const service = new retinker.ServiceClient({ baseUrl: url, apiKey: KEY });
  t.after(() => service.dispose());
  return { url, fault, retinker, service };
}
