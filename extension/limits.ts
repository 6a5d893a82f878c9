/** Every cap of the extension's side, with its reason. The engine's own are in engine/limits.ts. */
export const limits = {
  inPlace: {
    /** Lines before and after those that are edited, which the model reads too. */
    around: 40,
  },
  agent: {
    /** Answers with calls of tools to one question, and tokens of all of them: a model that goes in circles is ended. */
    rounds: 25,
    tokens: 32_768,
    /** A command must be read before it is allowed. */
    commandChars: 2_000,
    /** How long a command is waited for: builds and tests take minutes. */
    commandMs: 600_000,
    /** Until a new shell has told VS Code that it is there. */
    shellMs: 10_000,
    /** Of a command's output, its end. */
    outputChars: 16_000,
    /** Of a result, what the page and the journal keep. */
    shownChars: 4_000,
    /** Files of one list, chunks and lines of one search, and files that a text is looked for in, up to a size. */
    listed: 300,
    chunks: 8,
    lines: 100,
    searchedFiles: 4_000,
    searchedBytes: 512 * 1024,
  },
  review: {
    /** Comments on one part of a diff: a model that finds more has misunderstood. */
    comments: 5,
    commentChars: 400,
    /** More than that many comments take, also in scripts with several tokens a character. */
    answerTokens: 4_096,
    /** Of a line as the model reads it; longer ones are minified. */
    lineChars: 400,
  },
  pullRequest: {
    /** As git's subject lines. */
    titleChars: 72,
    summaryChars: 600,
    points: 8,
    pointChars: 160,
    /** Whose messages are read. */
    commits: 50,
  },
  failures: {
    /** Of a command, what its chip shows. */
    labelChars: 60,
  },
  rename: {
    names: 5,
    nameChars: 40,
    /** Lines above and below the name that the model reads. */
    around: 40,
  },
  edits: {
    /** Of a file that an answer changes: its old content is kept for the checkpoint. */
    fileBytes: 4 * 1024 * 1024,
    /** Of one answer; who changes more has a tool of their own for it. */
    files: 100,
    /** Checkpoints of a workspace; the oldest are removed. */
    sets: 50,
  },
  engine: {
    /** Waits before each restart after a crash; after the last one the user is asked. A run of bad luck passes within
     * seconds, a broken installation must not burn a core for ever. */
    restartDelaysMs: [0, 1_000, 4_000, 15_000],
    /** A run that lasted this long was healthy: the next crash starts from the first delay again. */
    healthyAfterMs: 120_000,
    /** From fork to the first answer. Slow disks and virus scanners take seconds, never a minute. */
    handshakeMs: 60_000,
    /** Between two looks at whether a child process still sends its heartbeat, and how many looks in a row may find none.
     * Looks are counted and not time: a computer that slept, or an extension host that was busy, has missed looks as well.
     * Ten seconds are more than a process at low priority waits on a busy or swapping machine. */
    heartbeatLookMs: 1_000,
    silentLooks: 10,
    /** Between asking the engine to end and killing it; VS Code itself gives an extension about five seconds. */
    stopMs: 1_500,
    /** How long an engine that windows share outlives the last one: a window that reloads takes up to some seconds. */
    graceMs: 20_000,
    /** Between two looks whether the engine that another window is starting is there. */
    pollMs: 50,
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
    /** Lines at the start of the file that are searched for imports. */
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
    /** Names whose definitions are asked for: keywords and those of the open file have none that is shown. */
    namesLookedUp: 10,
    /** The signature and how it begins: a longer one would leave the others no room on a CPU. */
    definitionLines: 10,
    similarSnippets: 2,
    /** What the index is asked for: as many of other files, and the three that it finds of the open file at most. */
    indexHits: 6,
    /** Lines around the cursor that the prompt has anyway: about 1,300 tokens above, a sixteenth of the prompt below. */
    nearLines: { above: 110, below: 12 },
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
    /** Lines of a file that is searched; a hundred times what people edit by hand. */
    lines: 50_000,
    /** After that pause, the model is asked: a completion at the cursor goes before. */
    idleMs: 600,
    /** What it is shown; at most what the engine takes. */
    edits: 3,
    places: 2,
    /** Above and below the edited line; Sweep's models were trained on 21 lines. */
    windowLines: 10,
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
    /** Mentions that go along with every question of a chat. More fill any context. */
    pins: 20,
    /** A question waits no longer for passages of the repository; a search takes a tenth of a second. */
    searchMs: 15_000,
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
    /** Files of a mentioned folder that are attached, beside all names. More would not fit any context. */
    folderFiles: 40,
    /** Looked through for mentions and folders; beyond, typing a longer name finds them no more. */
    listedFiles: 20_000,
    /** Files of a folder's summary, as many as the engine accepts; each takes seconds at least. */
    summaryFiles: 2_000,
    /** How long a list of the workspace's files is used. */
    listMs: 10_000,
    /** That were open when a mention was typed, and come first. */
    recentFiles: 50,
    /** Shown at once while a mention is typed. */
    suggestions: 12,
    /** Definitions of one name; overloads and classes of the same name rarely have more. */
    symbols: 3,
    /** Size of a file with rules for assistants. A longer one would fill any context. */
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
    /** Prompt of VS Code's agent before the user's first word: about 18,300 tokens, most of them tools. */
    agentPromptTokens: 20_000,
    /** Tokens that a template adds to each message: role, begin and end. Between 3 and 6 in all families. */
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
    /** Of one formula, longer ones are text. A page of derivation has 2,000; KaTeX takes 30 ms for the worst of this length. */
    formulaChars: 2_000,
  },
  webview: {
    /** A code block or answer that is copied or inserted. The longest answers are some tens of kilobytes. */
    codeChars: 400_000,
    /** Links that the user may open; longer ones are more likely to carry data away than to lead anywhere. */
    linkChars: 2_048,
    /** Ids, paths and error texts. The longest path of any platform is 32,767 characters, real ones some hundred. */
    nameChars: 4_096,
    /** Dropped at once; a context window holds a dozen files. */
    droppedFiles: 50,
  },
} as const;
