/** Every cap of the extension's side, with its reason. The engine's own are in engine/limits.ts. */
export const limits = {
  inPlace: {
    /** Lines before and after those that are edited, which the model reads too. */
    around: 40,
  },
  engine: {
    /** Waits before each restart after a crash; after the last one the user is asked. A run of bad luck passes within
     * seconds, a broken installation must not burn a core for ever. */
    restartDelaysMs: [0, 1_000, 4_000, 15_000],
    /** A run that lasted this long was healthy: the next crash starts from the first delay again. */
    healthyAfterMs: 120_000,
    /** From fork to the first answer. Slow disks and virus scanners take seconds, never a minute. */
    handshakeMs: 60_000,
    /** Between asking the engine to end and killing it; VS Code itself gives an extension about five seconds. */
    stopMs: 1_500,
    /** How long messages that were under way when the process ended may still arrive. */
    drainMs: 300,
    /** Lines of native output (ONNX Runtime, Dawn) are cut here before they reach the log. */
    logLineChars: 4_000,
  },
  completion: {
    /** Cached suggestions. Typing revisits a few dozen places at most. */
    cacheEntries: 250,
    /** Prefix and suffix sent to the engine: whole files as people write them, so that it can parse them. What the model
     * gets of it is the engine's to cut. */
    prefixLines: 1024,
    /** Of the lines before those, the first that imports are looked for in. */
    importLines: 200,
    suffixLines: 512,
    /** The same in characters, for minified files: one line may be megabytes. */
    prefixChars: 32_000,
    suffixChars: 16_000,
    /** The prefix starts on a multiple of this, so that it grows from a fixed start while one types and the engine's
     * cached prompt keeps its beginning. */
    anchorLines: 64,
    /** A pause asked for after slow answers never grows beyond this; it would feel like nothing happens. */
    debounceMs: 600,
    /** A request that VS Code gave up is kept for the next key, which comes within this time while one types. */
    nextKeyMs: 300,
    /** The engine warms up after this idle time, which is longer than pauses within typing. */
    idleMs: 1_500,
    /** The same after the cursor was moved and nothing typed: the next key is about a second away. */
    restMs: 300,
    /** Suggestions to cycle through when the user asks for them; each costs the time of one. */
    candidates: 3,
    /** Context from elsewhere is waited for this long at most; what comes later serves the next key. */
    contextMs: 100,
    /** Lines above and below the cursor that other places are compared with. */
    aroundLines: 10,
    belowLines: 5,
    /** Snippets of each kind. More push the file itself out of the prompt. */
    definitions: 4,
    similarSnippets: 2,
    recentEdits: 4,
    visitedFiles: 8,
    /** Searched part of a visited file. */
    visitedLines: 2_000,
    /** All snippets together; a CPU prefills some hundred tokens a second. */
    cpuContextChars: 1_500,
    contextChars: 6_000,
  },
  nextEdit: {
    /** After the last key of an edit: half a name must not be offered everywhere. */
    settleMs: 400,
    /** Of a file that is looked through; a hundred times what people edit by hand. */
    lines: 50_000,
  },
  chat: {
    /** A question typed or pasted by hand. */
    questionChars: 200_000,
    /** A first question as a title: about what a list shows of it. */
    titleChars: 80,
    /** A journal larger than this is not read into memory; a long chat is some hundred kilobytes. */
    journalBytes: 64 * 1024 * 1024,
    /** Streamed text is written to the journal this often: what a crash can take is what was said in this time. */
    journalFlushMs: 100,
    /** Between the last move of the cursor and the new context chip. */
    contextSettleMs: 80,
  },
  remote: {
    /** After a server could not be reached, keys do not ask it again for so long; a question does at once. */
    retryMs: 30_000,
    /** Settings that are written together are read together. */
    settleMs: 100,
  },
  server: {
    /** Between two looks at whether the port is free, which another window may hold. */
    retryMs: 30_000,
  },
  index: {
    /** After the window opened: language servers and the editor itself come first. */
    startMs: 5_000,
    /** Between the first change on disk and telling the indexer: a save is one message, a build as well. */
    settleMs: 300,
  },
  context: {
    /** Of a mentioned folder, beside the names of all: more would not fit any context. */
    folderFiles: 40,
    /** Looked through for mentions and folders; beyond, typing a longer name finds them no more. */
    listedFiles: 20_000,
    /** Of a folder's summary, as many as the engine takes; each takes seconds at least. */
    summaryFiles: 2_000,
    /** How long a list of the workspace's files is used. */
    listMs: 10_000,
    /** That were open when a mention was typed, and come first. */
    recentFiles: 50,
    /** Shown at once while a mention is typed. */
    suggestions: 12,
    /** Definitions of one name; overloads and classes of the same name rarely have more. */
    symbols: 3,
    /** Of rules for assistants; a longer file is no rule, or fills any context. */
    ruleBytes: 64 * 1024,
    /** Instructions and prompts of a folder that are looked at. */
    ruleFiles: 100,
    /** Diagnostics of a mention; who has more has one cause. */
    problems: 100,
  },
  languageModel: {
    /** Of a model's context and in tokens, what VS Code is told that an answer may take: it adds the two up and cuts its
     * prompts to the rest. */
    answerShare: 0.25,
    answerTokens: 16_384,
    /** What VS Code's agent asks before the user's first word: about 18,300 tokens, most of them tools. */
    agentPromptTokens: 20_000,
    /** What a template adds to each message: role, begin and end. Between 3 and 6 in all families. */
    framingTokens: 5,
    /** Calls of tools in one answer of @hearth, one round after the other. A model that goes in circles is ended. */
    toolRounds: 8,
    /** Of the context, what one result may take: several must fit beside the question. */
    toolResultShare: 0.2,
  },
  citations: {
    /** Files of one answer that are looked for in the workspace. Answers cite a dozen; each costs a search of it. */
    files: 100,
    /** Places of one answer that are links or marked as missing; a page has under 50. */
    places: 500,
  },
  markdown: {
    /** Quotes, lists and emphasis within each other. People write three or four levels; thousands overflow the stack. */
    depth: 24,
    /** Of one paragraph whose emphasis and links are read: about a page. Marked takes 50 ms for the worst of this length. */
    paragraphChars: 5_000,
  },
  webview: {
    /** A code block or answer that is copied or inserted. The longest answers are some tens of kilobytes. */
    codeChars: 400_000,
    /** Links that the user may open; longer ones are more likely to carry data away than to lead anywhere. */
    linkChars: 2_048,
    /** Ids, paths and error texts. The longest path of any platform is 32,767 characters, real ones some hundred. */
    nameChars: 4_096,
  },
} as const;
