/** A checkpoint's chat template: a conversation to the text that the model was trained to continue. */
import { compileTemplate, runTemplate } from './jinja/template.ts';

/** A message as templates see it; some look at further fields (`reasoning_content`, `tool_calls`). */
export interface TemplateMessage {
  readonly role: string;
  readonly content: string | null;
  readonly [field: string]: unknown;
}

export interface TemplateOptions {
  readonly messages: readonly TemplateMessage[];
  /** End with what introduces the assistant's turn. */
  readonly addGenerationPrompt: boolean;
  readonly bosToken: string;
  readonly eosToken: string;
  /** `enable_thinking`, `reasoning_effort`, `tools`, … */
  readonly variables?: Readonly<Record<string, unknown>>;
  /** What `strftime_now` says. A prompt that holds the time cannot be reused from the cache; one with the date can. */
  readonly now: Date;
}

export interface ChatTemplate {
  readonly source: string;
  /** @throws HearthError `invalid-input` when the template refuses the conversation, fails, or exceeds a bound. */
  render(options: TemplateOptions): string;
}

/** @throws HearthError `invalid-input` when `source` is no template. */
export function compileChatTemplate(source: string): ChatTemplate {
  const program = compileTemplate(source);
  return {
    source,
    render: (options) =>
      runTemplate(
        program,
        {
          ...options.variables,
          messages: options.messages,
          add_generation_prompt: options.addGenerationPrompt,
          bos_token: options.bosToken,
          eos_token: options.eosToken,
        },
        options.now,
      ),
  };
}
