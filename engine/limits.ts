/**
 * Every cap on what comes from outside, with its reason. A cap is far above what published models need and
 * far below what would hurt the machine.
 */
export const limits = {
  // Each group is used by the folder it is named after.
  model: {
    // The largest published config.json is about 100 KB (quantisation lists of single modules).
    configBytes: 4 * 1024 * 1024,
    // Llama 3.1 405B has 126 layers.
    layers: 1024,
    // DeepSeek-V3 has 7168; any of hidden, intermediate, query and key widths.
    width: 1 << 20,
    // DeepSeek-V3 has 128 heads, 256 experts.
    heads: 4096,
    experts: 16_384,
    // The largest published vocabulary is about 262,000.
    vocabulary: 1 << 22,
    // Ten times the longest context that is claimed today.
    contextTokens: 100_000_000,
  },
  store: {
    // DeepSeek-V3.1 is 0.69 TB; the largest open checkpoints are about twice that.
    modelBytes: 2e12,
    // DeepSeek-V3.1 has 163 shards and five small files.
    filesPerModel: 1024,
    // PyPI's page of a project with hundreds of releases is about 1 MB.
    indexBytes: 16 * 1024 * 1024,
    // A manifest lists at most `filesPerModel` files of about 200 bytes.
    manifestBytes: 1024 * 1024,
    // Folders looked at when the store is listed.
    installedModels: 4096,
    // File systems allow 255 bytes; published names stay under 100.
    fileNameChars: 128,
    // The hub needs three (renamed repository, cache, delivery network).
    redirects: 8,
    // A wheel with a model has about ten entries.
    zipEntries: 10_000,
    // Deflate cannot do better than 1032 to 1; quantised weights hardly shrink at all.
    zipRatio: 100,
    // Silence for so long is a dead connection.
    idleMs: 60_000,
    // A server may ask for patience (Retry-After), but not for ever.
    retryMs: 60_000,
    // A holder touches its lock every few seconds; one that has not for so long is gone.
    lockStaleMs: 60_000,
    // Left free on the disk after a download, for everything else that writes there.
    diskReserveBytes: 256 * 1024 * 1024,
  },
} as const;
