/**
 * Limits on input from outside, each with its reason. A limit is far above the needs of published models and far below what
 * would harm the machine.
 */
export const limits = {
  // A group is named after the folder that uses it.
  formats: {
    // The limit of safetensors itself. DeepSeek-V3's 91,991 tensors would take 14 MB in one header.
    safetensorsHeaderBytes: 100_000_000,
    // DeepSeek-V3's model.safetensors.index.json has 9 MB.
    safetensorsIndexBytes: 64 * 1024 * 1024,
    // DeepSeek-V3 has 91,991, the most of any supported family.
    tensors: 1 << 17,
    // DeepSeek-V3 has 163 shards.
    shards: 1024,
    // File systems allow 255.
    shardNameBytes: 255,
    // Published names have under 100 bytes.
    tensorNameBytes: 1024,
    // Published tensors have up to five dimensions (convolutions of video models).
    dimensions: 8,
    // Values under `__metadata__`. Training tools store their settings there, up to hundreds of KB.
    safetensorsMetadataBytes: 4 * 1024 * 1024,
    safetensorsMetadataKeys: 10_000,
    // Skipped JSON (an index's `metadata`) is at most two levels deep.
    jsonDepth: 16,
    // A vocabulary of 262,000 with 515,000 merges takes 16 MB.
    ggufHeaderBytes: 64 * 1024 * 1024,
    // Published files have under 100 keys and, because experts are stacked, under 2,000 tensors.
    ggufMetadataKeys: 1 << 16,
    ggufTensors: 1 << 16,
    // docs/gguf.md of ggml: a key has at most 2^16 - 1 bytes, a tensor name 64, a tensor 4 dimensions.
    ggufKeyBytes: 65_535,
    ggufTensorNameBytes: 64,
    ggufDimensions: 4,
    // Chat templates are the longest texts: up to about 100 KB.
    ggufStringBytes: 1024 * 1024,
    // 32 by default; nothing needs more than a memory page.
    ggufAlignmentBytes: 1 << 20,
    // Buffer size for reading headers.
    headerChunkBytes: 256 * 1024,
    // Open files of one checkpoint. macOS allows 256 per process.
    openFiles: 16,
    // Bytes per read call. Node.js reads less than 2 GiB at once.
    readChunkBytes: 64 * 1024 * 1024,
  },
  model: {
    // The largest published config.json is about 100 KB (it lists the quantisation of each module).
    configBytes: 4 * 1024 * 1024,
    // Llama 3.1 405B has 126 layers.
    layers: 1024,
    // Applies to hidden, intermediate, query and key widths. DeepSeek-V3's hidden size is 7168.
    width: 1 << 20,
    // DeepSeek-V3 has 128 heads, Qwen3-Next 512 experts.
    heads: 4096,
    experts: 16_384,
    // The largest published vocabulary is about 262,000.
    vocabulary: 1 << 22,
    // Ten times the longest published context window.
    contextTokens: 100_000_000,
  },
  question: {
    // Characters a token. Code has 3 to 4; a low value keeps estimates on the safe side.
    charsPerToken: 3,
    // Share of the context window for attached text; the rest is for the conversation and the answer.
    attachmentShare: 0.4,
    // CPU prefill runs at a few hundred tokens a second, so more attached text would make the time to first token too
    // long.
    cpuAttachmentTokens: 1_200,
    // Small models lose the question in a longer prompt: a model of 135M parameters gets 675 tokens of attached text,
    // one of 1.5B 7,500.
    parametersPerAttachedToken: 200_000,
    leastAttachmentTokens: 600,
    // Attached text is stored with the conversation; this limits a turn's size on disk.
    attachmentTokens: 131_072,
    // Share of the context window that the engine reserves for the answer.
    answerShare: 0.25,
    // Assumed while no model is loaded: the smallest context window of current models.
    assumedContextTokens: 2_048,
    // Search results for a question; the planner keeps those that fit.
    passages: 20,
    mapChars: 6_000,
  },
  remote: {
    // A server on a CPU may prefill a long prompt for minutes before its first token; the client's default timeout is
    // as long.
    headersMs: 600_000,
    // A streamed chunk takes up to about 400 bytes a token, so this is more than any model writes.
    answerBytes: 256 * 1024 * 1024,
    // Text, thinking and calls of one answer, which are all shown and stored: 131,072 tokens have about 0.5 million.
    answerChars: 4 * 1024 * 1024,
    // One chunk, or a list of models: OpenRouter's, the longest known, has under 1 MB.
    pieceChars: 8 * 1024 * 1024,
    // A response that isn't a stream: a list of models, an error.
    documentBytes: 16 * 1024 * 1024,
    models: 10_000,
    nameChars: 1024,
    // OpenAI allows 128 parallel calls.
    toolCalls: 1000,
    redirects: 5,
    // Error message of a server, as shown to the user.
    messageChars: 600,
  },
  cli: {
    // The largest generated sources are a few megabytes.
    sourceBytes: 16 * 1024 * 1024,
    // Teacher-forced logits of a 200,000-token vocabulary take 0.8 MB a token.
    ids: 1_000_000,
  },
  cache: {
    // Token ids in JSON: a context of 131,072 tokens takes under 1 MB.
    snapshotHeaderBytes: 4 * 1024 * 1024,
    // Snapshots of all models: several long conversations of a small model, or one of a large model.
    snapshotBytes: 2 * 1024 ** 3,
    // Computing a shorter prefix takes about as long as reading it from disk.
    minTokens: 256,
    // Snapshots restored after a start, before any request: an open chat, one or two files.
    preloadedSnapshots: 4,
    // After this long without a request, the user is reading or away.
    idleMs: 5_000,
    // Time between two writes. Prompts change with every key, and writes wear the disk.
    pauseMs: 120_000,
  },
  // If a call into native code doesn't return, the process ends, and its windows restart it.
  hang: {
    // For calls without an earlier measurement: a first pass (128 tokens of a 30B model take minutes on two old cores),
    // compiling kernels, a load since its last progress. Also for a main thread that doesn't return to its event loop.
    callSeconds: 900,
    // A pass counts as hung after `passSeconds`, but not before it took `slowerPass` times as long as the slowest
    // earlier pass, in proportion to its tokens.
    passSeconds: 60,
    slowerPass: 30,
  },
  nextEdit: {
    // Longer lines are seldom edited by hand.
    lineTokens: 96,
    // Candidate places and earlier edits in the prompt. Each place costs a prompt and a generated line.
    places: 2,
    edits: 3,
    // By then the cursor has moved.
    timeoutMs: 60_000,
  },
  generation: {
    // Pending requests of one class. An editor has a few; a team server has dozens.
    pendingRequestsPerClass: 64,
    // How long higher classes may block a class before it gets one step. Chat still makes visible progress while the
    // user types, and typing stays responsive. Warm-ups run only when nothing else does.
    patienceMs: { keystroke: Number.POSITIVE_INFINITY, chat: 1000, summary: 5000, 'warm-up': Number.POSITIVE_INFINITY },
    // How long a model of a closed window stays loaded beside those of other windows: a reload takes some seconds.
    keptMs: 30_000,
    // A window waits this long for others to give up a model: a changed setting reaches all windows within a second.
    settleMs: 2000,
    // A mask takes about a millisecond. Compiling a grammar takes up to a second, while other requests continue.
    choiceMs: 5,
    // VS Code cancels at the next key and asks only once per place, so a slow or busy machine may take this long for
    // the prefill.
    completionMs: 60_000,
    // Users don't read more than half a screen before accepting.
    completionLines: 24,
    // By then the cursor has moved.
    warmUpMs: 300_000,
    // Cached sequences per class, if memory allows: recent chats and recent cursor positions.
    idleSequences: { chat: 8, keystroke: 4, summary: 2, 'warm-up': 8 },
    // More than any vocabulary's average. Longer text is cut before tokenising.
    charsPerToken: 16,
    // Characters counted for a message's framing, which takes at least two tokens.
    messageChars: 32,
    // A conversation up to this length is tokenised whole, in about 10 ms. A longer one is truncated by characters first.
    historyChars: 256 * 1024,
    // Time slice of prompt preparation before yielding to the event loop.
    sliceMs: 10,
    // A longer prompt delays the first completion by seconds on a CPU.
    completionPromptTokens: 2048,
    // Context of a model that only completes: prompt, answer, and room for long answers through the API.
    completionContextTokens: 8192,
    // Compiled grammars to cache. An agent has about 60 tools.
    grammars: 256,
    // The longest schema of a published tool has about 20 KB.
    schemaChars: 256 * 1024,
    // Published schemas are at most about 20 levels deep. The output parser needs the same depth.
    schemaDepth: 200,
    // A value takes about ten characters or more.
    schemaValues: 32 * 1024,
    // A schema compiles in milliseconds. A slow one blocks all other grammar requests. A thousand steps take about a
    // millisecond of CPU time, whatever else the machine computes.
    grammarSteps: 5_000_000,
    // After this time the thread counts as hung.
    grammarMs: 120_000,
    // Grace time for cancelled work: enough to finish a mask; starting a new thread takes a second.
    grammarCancelMs: 250,
    // The grammar thread needs under 100 MB for a vocabulary of 200,000 tokens.
    grammarHeapMegabytes: 768,
    // Grammars with cached masks, and masks per grammar. A mask takes 25 KB for a vocabulary of 200,000 tokens.
    warmGrammars: 8,
    grammarMasks: 128,
    // The JSON Schema meta-schema has about 70 subschemas; FHIR's largest resource has about 4,000.
    schemas: 20_000,
    // Small models summarise longer parts badly, and progress is reported per part.
    summaryPartTokens: 3000,
    // A megabyte of source has about 100 parts of 3,000 tokens.
    summaryParts: 512,
    // Files in a folder summary; each takes at least seconds.
    summaryFiles: 2000,
    // Each round shortens the text to a third or less, so 512 parts need at most six.
    summaryRounds: 8,
  },
  repository: {
    // Hand-written sources are smaller; larger files are tables and bundles.
    fileBytes: 1024 * 1024,
    // Git's index of a million files has about 100 MB; rules and settings have kilobytes.
    gitFileBytes: 256 * 1024 * 1024,
    // Five times the Linux kernel's file count; more would only fill memory.
    files: 500_000,
    // Minified code averages thousands of characters a line; prose and code average under 120. Short files are exempt.
    generatedChars: 20_000,
    meanLineChars: 300,
    // Length of a transaction: bounds the work lost in a crash and the time that a reader waits.
    transactionMs: 500,
    // With more changed paths than this, a full scan is cheaper.
    changesBeforeScan: 500,
    // Time between two progress reports.
    stateMs: 1000,
    // Distinct terms of one question; the longest are kept. A pasted log has thousands, and each takes up to 1 ms to
    // look up.
    questionTerms: 64,
    // Chunks that the terms of one question may match together: BM25 ranks about 500 of them a millisecond.
    matchedChunks: 5_000,
    // Chunks that are read again for features that BM25 doesn't see: literals, calls, flags.
    rereadChunks: 150,
    // Characters of the files with those chunks, best files first. Headers with register definitions have megabytes.
    rereadChars: 3_000_000,
    // Answers of any kind in one message.
    results: 1000,
    // Names whose references a map counts, which takes 0.2 s. A larger repository is ranked by imports and the first
    // names.
    mapSymbols: 20_000,
    // Edges of the import graph; the Linux kernel has half a million.
    imports: 1_000_000,
    // Files parsed to separate references in code from mentions in comments and strings; about 5 ms each.
    parsedForReferences: 100,
  },
  server: {
    // 131,072 tokens are under 1 MB of text; an agent's conversation with tool results has a few MB.
    bodyBytes: 16 * 1024 * 1024,
    // JSON schemas of tools are about 20 levels deep.
    jsonDepth: 128,
    // Node's default.
    headerBytes: 16 * 1024,
    // A local client sends its headers immediately and its body within seconds.
    headersMs: 10_000,
    requestMs: 30_000,
    // Idle time of a kept-alive connection.
    keepAliveMs: 5_000,
    // A browser opens six; several programs with connection pools stay below this.
    connections: 128,
    // Below the scheduler's limit, so that the editor's requests are always accepted.
    pendingRequests: 32,
    retryAfterSeconds: 1,
    // Answers to one request (`n`).
    choices: 4,
    // Choices for a constrained answer; classifiers have about a hundred labels.
    choicesOfAnswer: 1000,
    // The limit of OpenAI's API.
    logprobs: 20,
    // Prompts in one completion request.
    prompts: 32,
    // An agent's conversation has hundreds; its tools are some dozens.
    messages: 10_000,
    tools: 128,
    // OpenAI's API allows 4; `text.stopStrings` is the engine's limit.
    stopStrings: 16,
    // Texts in one embedding request; the limit of OpenAI's API.
    embeddingInputs: 2048,
    // Minimum length. Hearth's own tokens have 256 bits, which is 43 characters of base64url.
    tokenChars: 32,
  },
  store: {
    // DeepSeek-V3.1 is 0.69 TB; the largest open checkpoints are about twice that.
    modelBytes: 2e12,
    // DeepSeek-V3.1 has 163 shards and five small files.
    filesPerModel: 1024,
    // PyPI's page of a project with hundreds of releases is about 1 MB.
    indexBytes: 16 * 1024 * 1024,
    // The hub lists 1,000 files a page; no model's repository has 20,000.
    hubPages: 20,
    // Files and folders examined in the folders of other programs, and how deep: LM Studio's lie two folders down.
    foreignFiles: 20_000,
    foreignDepth: 5,
    // A manifest lists at most `filesPerModel` files of about 200 bytes.
    manifestBytes: 1024 * 1024,
    // Folders examined when listing the store.
    installedModels: 4096,
    // File systems allow 255 bytes; published names have under 100.
    fileNameChars: 128,
    // The hub needs three (renamed repository, cache, CDN).
    redirects: 8,
    // A wheel with a model has about ten entries.
    zipEntries: 10_000,
    // Deflate reaches at most 1032 to 1; quantised weights barely compress.
    zipRatio: 100,
    // A connection without data for this long is dead.
    idleMs: 60_000,
    // Upper limit for Retry-After.
    retryMs: 60_000,
    // A holder touches its lock every few seconds; an older lock is stale.
    lockStaleMs: 60_000,
    // Cached summaries have about 2 KB each.
    summaries: 4096,
    // Kept free on the disk after a download, for other programs.
    diskReserveBytes: 256 * 1024 * 1024,
  },
  text: {
    // Gemma 3's tokenizer.json has 33 MB, the largest of the supported families.
    tokenizerJsonBytes: 128 * 1024 * 1024,
    // tokenizer_config.json, generation_config.json and templates: under 1 MB even with every added token listed.
    tokenizerConfigBytes: 16 * 1024 * 1024,
    // The largest published vocabulary is about 262,000, the longest list of merges 515,000.
    vocabularyTokens: 1 << 20,
    merges: 1 << 21,
    // All tokens together: GPT-OSS's 200,000 have 1.4 million characters, the most of the supported families.
    vocabularyChars: 1 << 23,
    // Sum of the squared lengths of SentencePiece tokens: every split of a token is looked up. For comparison,
    // GPT-OSS's tokens would have 13 million.
    splitChars: 1 << 28,
    // DeepSeek has 818; other vocabularies reserve a few thousand at most.
    addedTokens: 1 << 16,
    // Runs of spaces are the longest tokens: 128 characters in o200k, 256 in some others.
    tokenChars: 4096,
    // Published patterns have under 600 characters and at most six steps.
    patternChars: 8192,
    patternSteps: 16,
    // How much longer a normaliser may make a text. Published normalisers replace a blank by one character.
    normaliserGrowth: 16,
    // Applies only to patterns that no supported checkpoint has. They take under 200 ms for a megabyte.
    patternMs: 3000,
    // Words with cached token ids, in two generations: at most about 16 MB. A 1 MB source file has 12,000.
    cachedPieces: 32_768,
    // The longest published template has about 30 KB.
    templateChars: 512 * 1024,
    // A message takes about 200 steps in the longest published template.
    templateSteps: 300_000,
    templateStepsOfMessage: 300,
    // Published templates are about 30 levels deep. The interpreter uses about four stack frames a level.
    templateDepth: 400,
    // Characters that a template may add to its input; published templates add under 20 KB.
    templateOutputChars: 1024 * 1024,
    // Items of lists that a template builds (messages, tools, `range`), and the nesting of such lists.
    templateItems: 100_000,
    templateNesting: 64,
    // Width of indents and separators in `tojson`; templates use 2 or 4, and a comma.
    templateWidth: 64,
    // Wall-clock limit in addition to the others. A template takes 30 ms, on a busy machine ten times as long.
    templateMs: 5000,
    // OpenAI's API allows 4 stop strings. Each held-back character is compared with all of them.
    stopStrings: 64,
    stopStringChars: 1024,
  },
} as const;

/** Whether an address is this computer's own. */
export const isLoopback = (url: URL): boolean => /^(127(\.\d{1,3}){3}|localhost|\[::1\])$/.test(url.hostname);
