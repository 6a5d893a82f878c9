/**
 * Every cap on what comes from outside, with its reason. A cap is far above what published models need and
 * far below what would hurt the machine.
 */
export const limits = {
  // Each group is used by the folder it is named after.
  formats: {
    // safetensors' own cap. DeepSeek-V3's 91,991 tensors would take 14 MB in one header.
    safetensorsHeaderBytes: 100_000_000,
    // DeepSeek-V3's model.safetensors.index.json has 9 MB.
    safetensorsIndexBytes: 64 * 1024 * 1024,
    // DeepSeek-V3 has 91,991, the most in any family of ours.
    tensors: 1 << 17,
    // DeepSeek-V3 has 163 shards.
    shards: 1024,
    // File systems allow 255.
    shardNameBytes: 255,
    // Published names stay under 100.
    tensorNameBytes: 1024,
    // Published tensors have up to five (convolutions of video models).
    dimensions: 8,
    // Values under `__metadata__`: trainers write their settings there, up to hundreds of KB.
    safetensorsMetadataBytes: 4 * 1024 * 1024,
    safetensorsMetadataKeys: 10_000,
    // JSON that is skipped over (an index's `metadata`) is at most two levels deep.
    jsonDepth: 16,
    // A vocabulary of 262,000 with 515,000 merges takes 16 MB.
    ggufHeaderBytes: 64 * 1024 * 1024,
    // Published files have under 100 keys, and under 2,000 tensors: experts are stacked.
    ggufMetadataKeys: 1 << 16,
    ggufTensors: 1 << 16,
    // docs/gguf.md of ggml: a key has at most 2^16 - 1 bytes, a tensor name 64, a tensor 4 dimensions.
    ggufKeyBytes: 65_535,
    ggufTensorNameBytes: 64,
    ggufDimensions: 4,
    // Chat templates are the longest texts: up to about 100 KB.
    ggufStringBytes: 1024 * 1024,
    // 32 by default; nothing needs more than a page.
    ggufAlignmentBytes: 1 << 20,
    // Headers are read through one buffer of this size.
    headerChunkBytes: 256 * 1024,
    // Files of one checkpoint that are open at once; a process may have 256 on macOS.
    openFiles: 16,
    // One operating-system read; Node.js takes less than 2 GiB at once.
    readChunkBytes: 64 * 1024 * 1024,
  },
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
  question: {
    // Characters a token, low on purpose (code has about 3 to 4), so that an estimate never promises too much room.
    charsPerToken: 3,
    // Share of the model's context that attached text may take; the rest is for the conversation and the answer.
    attachmentShare: 0.4,
    // On the CPU a prompt is read at some hundred tokens a second: with more than this attached, the first word of
    // every answer would take longer than people wait.
    cpuAttachmentTokens: 1_200,
    // A model of 135M parameters gets 675 tokens beside a question, one of 1.5B 7,500: small ones lose the question in more.
    parametersPerAttachedToken: 200_000,
    leastAttachmentTokens: 600,
    // Attached text is journalled with the conversation; this bounds a turn on disk however long the context is.
    attachmentTokens: 131_072,
    // Share of the context that the engine keeps free for an answer.
    answerShare: 0.25,
    // The context that is assumed while no model is loaded; the smallest that current models have.
    assumedContextTokens: 2_048,
    // Found by a search for a question; the planner takes what has room.
    passages: 20,
    mapChars: 6_000,
  },
  cli: {
    // The largest generated sources are a few megabytes.
    sourceBytes: 16 * 1024 * 1024,
    // Teacher-forced logits of a 200,000-token vocabulary take 0.8 MB a token.
    ids: 1_000_000,
  },
  cache: {
    // Token ids in JSON: a context of 131,072 takes under 1 MB.
    snapshotHeaderBytes: 4 * 1024 * 1024,
    // Stored sequences of all models: some long conversations of a small model, one of a large one.
    snapshotBytes: 2 * 1024 ** 3,
    // A shorter beginning is computed in about the time that it takes to read it.
    leastTokens: 256,
    // Stored sequences that are read before anyone asks for them: an open chat, a file or two.
    restoredAhead: 4,
    // Nothing was asked for this long: the user is reading or away.
    idleMs: 5_000,
    // Between two times of writing: what is typed changes all the time, and a disk wears.
    pauseMs: 120_000,
  },
  generation: {
    // Requests of one class that wait or run at once; an editor has a few, a team's server some dozens.
    pendingRequestsPerClass: 64,
    // How long better classes may hold a class up before it gets one step: short enough that a chat is seen to go on
    // while someone types, rare enough that typing does not feel it. Warm-ups wait for idleness.
    patienceMs: { keystroke: Number.POSITIVE_INFINITY, chat: 1000, summary: 5000, 'warm-up': Number.POSITIVE_INFINITY },
    // A mask is made in about a millisecond; a grammar that is compiled first takes up to a second, and others go on.
    choiceMs: 5,
    // Nobody waits longer for a suggestion at the cursor.
    completionMs: 20_000,
    // Lines of a suggestion: more than half a screen is never read before accepting.
    completionLines: 24,
    // By then the cursor is elsewhere.
    warmUpMs: 300_000,
    // Sequences kept for the next prompt, as far as memory lasts: chats that one goes back to, the last places of typing.
    idleSequences: { chat: 8, keystroke: 4, summary: 2, 'warm-up': 8 },
    // No vocabulary packs more characters into a token on average; text beyond is not even encoded.
    charsPerToken: 16,
    // What frames a message takes at least two tokens; so many characters count for it where characters are counted.
    messageChars: 32,
    // A conversation up to here is encoded whole, which takes some 10 ms; a longer one is first cut by its characters.
    historyChars: 256 * 1024,
    // Of preparing a prompt, between two looks at what else there is to do.
    sliceMs: 10,
    // A longer completion prompt delays the first suggestion by seconds on a processor.
    completionPromptTokens: 2048,
    // Compiled grammars: an agent has about 60 tools.
    grammars: 256,
    // The longest schema of a published tool has about 20 KB.
    schemaChars: 256 * 1024,
    // Published schemas are at most about 20 levels deep; the parser of an answer must go as deep.
    schemaDepth: 200,
    // A value takes about ten characters at least.
    schemaValues: 32 * 1024,
    // A schema is compiled in some milliseconds; one that takes longer holds up all answers that follow a grammar.
    grammarMs: 5_000,
    // How long one that nobody waits for any more may go on: a mask is done by then, and another thread takes a second to start.
    grammarCancelMs: 250,
    // The thread of grammars needs under 100 MB for a vocabulary of 200,000 tokens.
    grammarHeapMegabytes: 768,
    // Machines whose states and masks are kept, and masks of each: 25 KB for a vocabulary of 200,000.
    warmGrammars: 8,
    grammarMasks: 128,
    // The schema of schemas has about 70; FHIR's largest resource about 4,000.
    schemas: 20_000,
    // Small models lose the thread in longer parts, and progress is seen part by part.
    summaryPartTokens: 3000,
    // A megabyte of source in parts of 3,000 tokens is about 100.
    summaryParts: 512,
    // Of a folder's summary; each takes seconds at least.
    summaryFiles: 2000,
    // Each round shortens the text to a third or less, so 512 parts need at most six.
    summaryRounds: 8,
  },
  repository: {
    // Hand-written sources stay below; larger ones are tables and bundles.
    fileBytes: 1024 * 1024,
    // Git's index of a million files has about 100 MB; rules and settings have kilobytes.
    gitFileBytes: 256 * 1024 * 1024,
    // Five times the Linux kernel; a walk beyond fills memory rather than answers questions.
    files: 500_000,
    // Minified code has thousands of characters a line, prose and code under 120; short files are left alone.
    generatedChars: 20_000,
    meanLineChars: 300,
    // One transaction: what a crash makes to be done again, and what a reader may wait for.
    transactionMs: 500,
    // Paths that are looked at one by one; above, a scan of all is cheaper.
    changesBeforeScan: 500,
    // Between two reports of how far it is.
    stateMs: 1000,
    // Different terms of one question, the rarest first; a pasted log has thousands.
    questionTerms: 200,
    // Chunks that the terms of one question may match together: BM25 ranks about 500 of them a millisecond.
    matchedChunks: 20_000,
    // Chunks that are read again for what BM25 doesn't see: literals, calls, flags.
    rereadChunks: 150,
    // Answers of any kind in one message.
    results: 1000,
    // Names whose references a map counts: 0.2 s; a larger repository is ranked by imports and the first ones.
    mapSymbols: 20_000,
    // Edges of the import graph; the Linux kernel has half a million.
    imports: 1_000_000,
    // Parsed to tell a mention in code from one in a comment or string; about 5 ms each.
    parsedForReferences: 100,
  },
  server: {
    // 131,072 tokens are under 1 MB of text; with the tool results of an agent a conversation has a few.
    bodyBytes: 16 * 1024 * 1024,
    // JSON schemas of tools nest about 20 deep.
    jsonDepth: 128,
    // A token and what clients send along; Node's own default.
    headerBytes: 16 * 1024,
    // A client on this machine sends its headers at once and its body within seconds.
    headersMs: 10_000,
    requestMs: 30_000,
    // Between two requests of a client that keeps its connection.
    keepAliveMs: 5_000,
    // Browsers open six; a few programs with a pool each stay under it.
    connections: 128,
    // Requests that wait or run, below the scheduler's own cap so that the editor always gets in.
    pendingRequests: 32,
    retryAfterSeconds: 1,
    // Answers to one request.
    choices: 4,
    // Texts that an answer is one of; labels of a classifier have some hundred.
    choicesOfAnswer: 1000,
    // As OpenAI's API.
    logprobs: 20,
    // Prompts of one request for completions.
    prompts: 32,
    // An agent's conversation has hundreds; its tools are some dozens.
    messages: 10_000,
    tools: 128,
    // OpenAI's API takes 4, engines up to `text.stopStrings`.
    stopStrings: 16,
    // Texts of one embedding request, as OpenAI's API.
    embeddingInputs: 2048,
    // 256 bits are 43 characters of base64url; shorter ones were not made by Hearth.
    tokenChars: 32,
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
    // Kept summaries have about 2 KB each.
    summaries: 4096,
    // Left free on the disk after a download, for everything else that writes there.
    diskReserveBytes: 256 * 1024 * 1024,
  },
  text: {
    // GPT-OSS's tokenizer.json has 28 MB, the largest of our families; Gemma 3's has 33 MB.
    tokenizerJsonBytes: 128 * 1024 * 1024,
    // tokenizer_config.json, generation_config.json and templates: under 1 MB even with every added token listed.
    tokenizerConfigBytes: 16 * 1024 * 1024,
    // The largest published vocabulary is about 262,000, the longest list of merges 515,000.
    vocabularyTokens: 1 << 20,
    merges: 1 << 21,
    // DeepSeek has 818; reserved tokens are numbered into the thousands at most.
    addedTokens: 1 << 16,
    // Runs of blanks are the longest tokens: 128 in o200k, 256 in some others.
    tokenChars: 4096,
    // Published patterns have under 600 characters, in at most six steps.
    patternChars: 8192,
    patternSteps: 16,
    // For patterns that no published checkpoint of ours has: a megabyte takes them under 200 ms.
    patternMs: 3000,
    // Pieces of text whose ids are remembered, twice over: at most about 16 MB. A 1 MB source file has 12,000.
    cachedPieces: 32_768,
    // The longest published template has about 30 KB.
    templateChars: 512 * 1024,
    // A message takes about 200 steps in the longest published template.
    templateSteps: 300_000,
    templateStepsOfMessage: 300,
    // Published templates nest about 30 deep. The interpreter takes about four stack frames a level.
    templateDepth: 400,
    // What a template may add to what it is given; published ones add under 20 KB.
    templateOutputChars: 1024 * 1024,
    // Lists a template builds: messages, tools, `range`; and how deep they nest.
    templateItems: 100_000,
    templateNesting: 64,
    // Indents and separators; people write 2 or 4, and a comma.
    templateWidth: 64,
    // The net below the other bounds, by the clock: a template needs 30 ms, and a busy machine ten times as long.
    templateMs: 5000,
    // OpenAI's API takes 4 stop strings; each held-back character is compared with all of them.
    stopStrings: 64,
    stopStringChars: 1024,
  },
} as const;
