/** Every cap of the extension's side, with its reason. The engine's own are in engine/limits.ts. */
export const limits = {
  inPlace: {
    /** Lines before and after the edited ones that the model gets too. */
    around: 40,
  },
  agent: {
    /** Answers with tool calls to one question, and tokens of all of them: stops a model that goes in circles. */
    rounds: 25,
    tokens: 32_768,
    /** The user must be able to read a command before allowing it. */
    commandChars: 2_000,
    /** Maximum wait for a command: builds and tests take minutes. */
    commandMs: 600_000,
    /** Maximum wait for a new shell's integration with VS Code. */
    shellMs: 10_000,
    /** Characters kept from the end of a command's output. */
    outputChars: 16_000,
    /** Characters of a result that the page and the journal keep. */
    shownChars: 4_000,
    /** Files of one list, chunks and lines of one search, and number and size of the files that a text search reads. */
    listed: 300,
    chunks: 8,
    lines: 100,
    searchedFiles: 4_000,
    searchedBytes: 512 * 1024,
  },
  review: {
    /** Comments on one part of a diff: a model that finds more misunderstood the task. */
    comments: 5,
    commentChars: 400,
    /** More than these comments need, even in scripts with several tokens a character. */
    answerTokens: 4_096,
    /** Characters of a line that the model gets; longer lines are minified code. */
    lineChars: 400,
  },
  pullRequest: {
    /** As git's subject lines. */
    titleChars: 72,
    summaryChars: 600,
    points: 8,
    pointChars: 160,
    /** Commits whose messages the model gets. */
    commits: 50,
  },
  failures: {
    /** Characters of a command that its chip shows. */
    labelChars: 60,
  },
  rename: {
    names: 5,
    nameChars: 40,
    /** Lines above and below the name that the model gets. */
    around: 40,
  },
  edits: {
    /** Size of a file that an answer changes: the checkpoint keeps its old content. */
    fileBytes: 4 * 1024 * 1024,
    /** Files that one answer may change; larger changes need another tool. */
    files: 100,
    /** Checkpoints of a workspace; the oldest are removed. */
    sets: 50,
  },
  engine: {
    /** Waits before each restart after a crash; after the last one the user must act. A temporary fault passes within
     * seconds; a broken installation must not use a core for ever. */
    restartDelaysMs: [0, 1_000, 4_000, 15_000],
    /** After a run of this length, the next crash starts from the first delay again. */
    healthyAfterMs: 120_000,
    /** From fork to the first answer. Slow disks and virus scanners take seconds, never a minute. */
    handshakeMs: 60_000,
    /** Interval of the checks whether a child process still sends its heartbeat, and how many checks in a row may fail.
     * Checks are counted instead of time: a computer that slept, or a busy extension host, has missed checks as well.
     * A process at low priority waits less than ten seconds on a busy or swapping machine. */
    heartbeatLookMs: 1_000,
    silentLooks: 10,
    /** Between asking the engine to end and killing it; VS Code itself gives an extension about five seconds. */
    stopMs: 1_500,
    /** How long a shared engine outlives its last window: reloading a window takes some seconds. */
    graceMs: 20_000,
    /** Polling interval while another window starts the engine. */
    pollMs: 50,
    /** Maximum wait for messages that were still in the channel when the process ended. */
    drainMs: 300,
    /** Lines of native output (ONNX Runtime, Dawn) are cut here before they reach the log. */
    logLineChars: 4_000,
  },
  completion: {
    /** Cached suggestions. Typing revisits a few dozen places at most. */
    cacheEntries: 250,
    /** Prefix and suffix sent to the engine: whole files of usual length, so that it can parse them. The engine decides
     * how much of it the model gets. */
    prefixLines: 1024,
    /** Lines at the start of the file that are searched for imports. */
    importLines: 200,
    suffixLines: 512,
    /** The same in characters, for minified files: one line may be megabytes. */
    prefixChars: 32_000,
    suffixChars: 16_000,
    /** The prefix starts on a multiple of this, so that it keeps its start while the user types and the engine's
     * cached prompt still matches. */
    anchorLines: 64,
    /** Upper limit of the debounce after slow answers; a longer wait feels broken. */
    debounceMs: 600,
    /** A request that VS Code cancelled stays for the next key, which comes within this time while the user types. */
    nextKeyMs: 300,
    /** Idle time before a warm-up; longer than pauses within typing. */
    idleMs: 1_500,
    /** The same after the cursor moved without typing: the next key is about a second away. */
    restMs: 300,
    /** Suggestions to cycle through when the user asks for them; each takes as long as one completion. */
    candidates: 3,
    /** Maximum wait for context from elsewhere; later results serve the next key. */
    contextMs: 100,
    /** Lines around the cursor that are compared with other places. */
    aroundLines: 10,
    belowLines: 5,
    /** Snippets of each kind. More would push the file itself out of the prompt. */
    definitions: 4,
    /** Names that are looked up: more than are shown, because keywords and names of the open file give no snippet. */
    namesLookedUp: 10,
    /** The signature and the first lines: longer ones would leave no room for the others on a CPU. */
    definitionLines: 10,
    similarSnippets: 2,
    /** Hits requested from the index: three of other files, plus at most three of the open file. */
    indexHits: 6,
    /** Lines around the cursor that the prompt always has: about 1,300 tokens above, a sixteenth of the prompt below. */
    nearLines: { above: 110, below: 12 },
    recentEdits: 4,
    visitedFiles: 8,
    /** Lines searched in a visited file. */
    visitedLines: 2_000,
    /** All snippets together; a CPU prefills some hundred tokens a second. */
    cpuContextChars: 1_500,
    contextChars: 6_000,
  },
  nextEdit: {
    /** Wait after the last key of an edit: half a name must not be offered everywhere. */
    settleMs: 400,
    /** Lines of a file that is searched; a hundred times what people edit by hand. */
    lines: 50_000,
    /** Pause before the model is asked: a completion at the cursor goes first. */
    idleMs: 600,
    /** Edits and places in its prompt; at most as many as the engine accepts. */
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
    /** How often streamed text is written to the journal. A crash loses at most the text of this time. */
    journalFlushMs: 100,
    /** Pinned mentions of a chat. More would fill any context. */
    pins: 20,
    /** Maximum wait of a question for a repository search, which usually takes a tenth of a second. */
    searchMs: 15_000,
    /** Wait after the last cursor move before the context chip changes. */
    contextSettleMs: 80,
  },
  remote: {
    /** How long keystrokes do not try an unreachable server again; a question tries at once. */
    retryMs: 30_000,
    /** Wait after a changed setting, so that settings written together are read together. */
    settleMs: 100,
  },
  server: {
    /** Interval of attempts to get the port, which another window may hold. */
    retryMs: 30_000,
  },
  index: {
    /** Wait after the window opened: language servers and the editor itself go first. */
    startMs: 5_000,
    /** Wait between the first change on disk and the message to the indexer, so that a build is one message. */
    settleMs: 300,
  },
  context: {
    /** Files of a mentioned folder that are attached, in addition to all names. More would not fit any context. */
    folderFiles: 40,
    /** Files listed for mentions and folders; files beyond this are not found, even by a longer name. */
    listedFiles: 20_000,
    /** Files of a folder's summary: the engine's own limit. Each takes seconds at least. */
    summaryFiles: 2_000,
    /** How long a list of the workspace's files is cached. */
    listMs: 10_000,
    /** Recently open files, which are suggested first. */
    recentFiles: 50,
    /** Suggestions shown at once while a mention is typed. */
    suggestions: 12,
    /** Definitions of one name; overloads rarely have more. */
    symbols: 3,
    /** Size of a file with rules for assistants. A larger one would fill any context. */
    ruleBytes: 64 * 1024,
    /** Instruction and prompt files read from a folder. */
    ruleFiles: 100,
    /** Diagnostics of a mention; more usually have one cause. */
    problems: 100,
  },
  languageModel: {
    /** Share of a model's context, and tokens, that VS Code reserves for an answer: it cuts its
     * prompts to the rest. */
    answerShare: 0.25,
    answerTokens: 16_384,
    /** Prompt of VS Code's agent before the user's first word: about 18,300 tokens, most of them tools. */
    agentPromptTokens: 20_000,
    /** Tokens that a template adds to each message: role, begin and end. 3 to 6 in all families. */
    framingTokens: 5,
    /** Rounds of tool calls in one answer of @hearth. Stops a model that goes in circles. */
    toolRounds: 8,
    /** Share of the context that one result may take: several must fit beside the question. */
    toolResultShare: 0.2,
  },
  citations: {
    /** Files of one answer that are looked up in the workspace. Answers cite a dozen; each lookup is a search. */
    files: 100,
    /** Citations of one answer that become links or are marked as missing; a page has under 50. */
    places: 500,
  },
  markdown: {
    /** Nesting of quotes, lists and emphasis. People write three or four levels; thousands overflow the stack. */
    depth: 24,
    /** Length of a paragraph whose emphasis and links are parsed: about a page. marked takes 50 ms for the worst case. */
    paragraphChars: 5_000,
    /** Length of a formula; longer ones are shown as text. A page of derivation has 2,000; KaTeX takes 30 ms for the worst case. */
    formulaChars: 2_000,
  },
  webview: {
    /** Length of a copied or inserted code block or answer. The longest answers are some tens of kilobytes. */
    codeChars: 400_000,
    /** Length of a link that the user may open; longer ones more likely leak data than lead anywhere. */
    linkChars: 2_048,
    /** Length of ids, paths and error texts. The longest path of any platform has 32,767 characters, real ones some hundred. */
    nameChars: 4_096,
    /** Files dropped at once; a context window holds a dozen. */
    droppedFiles: 50,
  },
} as const;
