/** ggml's backend for this CPU, with its own threads, which compute one graph after the other. */
import { GrantedThreads } from '../processor/threads.ts';
import { type Ggml, type LibraryFiles, openGgml, type Pointer } from './library.ts';

/** More than `sizeof(struct ggml_threadpool_params)`. */
const threadpoolParameterBytes = 1024;

/** Offsets in it: the number of threads, and how long they look for the next graph before they sleep. */
const [threadsAt, pollAt] = [512, 520];

/**
 * About 8 ms, longer than the pause between two tokens. By default threads look for half a second, in which they take
 * processors from another model: a larger one that a smaller one drafts for then answers at 0.8 of its speed.
 */
const poll = 1;

export class ComputeThreads {
  readonly ggml: Ggml;
  readonly backend: Pointer;
  readonly #pool: Pointer;
  readonly #granted: GrantedThreads;

  /** @throws HearthError `unavailable` */
  constructor(libraries: LibraryFiles, threads: number) {
    const ggml = openGgml(libraries);
    this.ggml = ggml;
    this.backend = ggml.ggml_backend_cpu_init();
    const parameters = new Uint8Array(threadpoolParameterBytes);
    ggml.ggml_threadpool_params_init(parameters, threads);
    const view = new DataView(parameters.buffer);
    // A later release may order the fields otherwise.
    if (view.getUint32(threadsAt, true) === threads) view.setUint32(pollAt, poll, true);
    this.#pool = ggml.ggml_threadpool_new(parameters);
    ggml.ggml_backend_cpu_set_n_threads(this.backend, threads);
    ggml.ggml_backend_cpu_set_threadpool(this.backend, this.#pool);
    this.#granted = new GrantedThreads(threads);
  }

  compute(graph: Pointer): void {
    const { ggml_backend_cpu_set_n_threads, ggml_backend_graph_compute } = this.ggml;
    const [startMs, before] = [performance.now(), process.cpuUsage()];
    ggml_backend_cpu_set_n_threads(this.backend, this.#granted.next(startMs));
    const status = ggml_backend_graph_compute(this.backend, graph);
    const { user, system } = process.cpuUsage(before);
    const endMs = performance.now();
    this.#granted.observe({ wallMs: endMs - startMs, processorMs: (user + system) / 1e3 }, endMs);
    if (status !== 0) throw new Error(`the graph ended with status ${status}`);
  }

  free(): void {
    this.ggml.ggml_backend_free(this.backend);
    this.ggml.ggml_threadpool_free(this.#pool);
  }
}
