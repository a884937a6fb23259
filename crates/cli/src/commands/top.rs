//! `cofferdam top`: what runs, what it uses and what is decided about it, as it happens.

use crate::args::Global;
use crate::commands::stats::{Sample, Samples};
use crate::context::{Context, data_path};
use crate::exit::Failure;
use crate::output::{age, printable, size};
use crate::terminal;
use cofferdam_lifecycle::control::Request;
use cofferdam_lifecycle::data::now;
use cofferdam_model::{Event, SandboxId, SandboxRecord};
use cofferdam_store::{EventFilter, Store};
use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Table, TableState};
use ratatui::{DefaultTerminal, Frame};
use std::collections::{BTreeMap, VecDeque};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_secs(1);
const KEPT_EVENTS: usize = 200;
const GRACE_MS: u64 = 10_000;
const HELP: &str = " ↑↓ choose  a attach  s stop  K kill  p pause  c cpu  m memory  n name  q quit ";

/// What the rows are sorted by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Cpu,
    Memory,
    Name,
}

/// What a key asks for that the screen cannot do by itself.
enum Wanted {
    Nothing,
    Quit,
    Attach(SandboxId),
}

struct Top {
    context: Context,
    store: Store,
    samples: Samples,
    records: BTreeMap<SandboxId, SandboxRecord>,
    rows: Vec<Sample>,
    events: VecDeque<Event>,
    order: Order,
    state: TableState,
    /// What stop or kill waits to be confirmed.
    asked: Option<(SandboxId, Request, &'static str)>,
    paused: BTreeMap<SandboxId, bool>,
    message: String,
}

/// Shows it until it is left.
pub fn run(global: Global) -> Result<ExitCode, Failure> {
    if !terminal::is_interactive() {
        return Err(Failure::usage("top: standard input and output are no terminal").remedy("cofferdam stats prints the same"));
    }
    let data = data_path(&global);
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let events = store.event_last(KEPT_EVENTS as u32)?.into();
    let mut top = Top {
        context,
        store,
        samples: Samples::default(),
        records: BTreeMap::new(),
        rows: Vec::new(),
        events,
        order: Order::Cpu,
        state: TableState::default(),
        asked: None,
        paused: BTreeMap::new(),
        message: String::new(),
    };
    loop {
        let mut screen = ratatui::try_init()?;
        let wanted = top.serve(&mut screen);
        ratatui::restore();
        match wanted? {
            Wanted::Attach(id) => {
                // In a process of its own: it reads the terminal in a thread that would go on.
                let mut attach = Command::new("/proc/self/exe");
                attach.arg("--data-dir").arg(&data).arg("attach").arg(id.to_string());
                println!("attached to {}: Ctrl-P Ctrl-Q leads back", id.short());
                top.message = match attach.status() {
                    Ok(status) => format!("attach ended: {status}"),
                    Err(error) => error.to_string(),
                };
            }
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

impl Top {
    fn serve(&mut self, screen: &mut DefaultTerminal) -> Result<Wanted, Failure> {
        loop {
            self.look()?;
            let next = Instant::now() + PERIOD;
            loop {
                screen.draw(|frame| self.draw(frame))?;
                if !event::poll(next.saturating_duration_since(Instant::now()))? {
                    break;
                }
                if let event::Event::Key(key) = event::read()?
                    && key.kind == KeyEventKind::Press
                {
                    match self.key(key) {
                        Wanted::Nothing => {}
                        other => return Ok(other),
                    }
                }
            }
        }
    }

    /// Looks at everything once.
    fn look(&mut self) -> Result<(), Failure> {
        let live = self.store.sandbox_list_live()?;
        self.rows = self.samples.take(&self.context, &live);
        self.records = live.into_iter().map(|record| (record.id, record)).collect();
        self.sort();
        let after = self.events.back().map_or(0, |event| event.sequence);
        self.events.extend(self.store.event_list(&EventFilter { after, subject: None, limit: 0 })?);
        let more = self.events.len().saturating_sub(KEPT_EVENTS);
        self.events.drain(..more);
        Ok(())
    }

    fn sort(&mut self) {
        let chosen = self.chosen();
        let name = |sample: &Sample| sample.name.as_ref().map_or_else(|| sample.id.short(), ToString::to_string);
        match self.order {
            Order::Cpu => self.rows.sort_by(|a, b| b.cpu_percent.total_cmp(&a.cpu_percent)),
            Order::Memory => self.rows.sort_by_key(|row| std::cmp::Reverse(row.memory_bytes)),
            Order::Name => self.rows.sort_by_key(name),
        }
        let index = chosen.and_then(|id| self.rows.iter().position(|row| row.id == id));
        self.state.select(index.or(if self.rows.is_empty() { None } else { Some(0) }));
    }

    fn chosen(&self) -> Option<SandboxId> {
        Some(self.rows.get(self.state.selected()?)?.id)
    }

    fn key(&mut self, key: KeyEvent) -> Wanted {
        if let Some((id, request, verb)) = self.asked.take() {
            self.message = if key.code == KeyCode::Char('y') { self.ask(id, &request, verb) } else { "not done".into() };
            return Wanted::Nothing;
        }
        self.message.clear();
        let last = self.rows.len().saturating_sub(1);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Wanted::Quit,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Wanted::Quit,
            KeyCode::Up => self.state.select(self.state.selected().map(|row| row.saturating_sub(1))),
            KeyCode::Down => self.state.select(self.state.selected().map(|row| (row + 1).min(last))),
            KeyCode::Char('c') => self.order = Order::Cpu,
            KeyCode::Char('m') => self.order = Order::Memory,
            KeyCode::Char('n') => self.order = Order::Name,
            other => return self.key_of_sandbox(other),
        }
        self.sort();
        Wanted::Nothing
    }

    fn key_of_sandbox(&mut self, key: KeyCode) -> Wanted {
        let Some(id) = self.chosen() else { return Wanted::Nothing };
        match key {
            KeyCode::Char('a') | KeyCode::Enter => return Wanted::Attach(id),
            KeyCode::Char('s') => self.asked = Some((id, Request::Stop { grace_ms: GRACE_MS }, "stop")),
            KeyCode::Char('K') => self.asked = Some((id, Request::Kill { signal: None }, "kill")),
            KeyCode::Char('p') => {
                let paused = !self.paused.get(&id).copied().unwrap_or(false);
                self.paused.insert(id, paused);
                self.message = if paused { self.ask(id, &Request::Pause, "pause") } else { self.ask(id, &Request::Resume, "resume") };
            }
            _ => {}
        }
        Wanted::Nothing
    }

    /// Does not wait for the end: it will be seen.
    fn ask(&self, id: SandboxId, request: &Request, verb: &str) -> String {
        let asked = self.records.get(&id).map(|record| self.context.connect(record).and_then(|client| Ok(client.send(request, &[])?)));
        match asked {
            Some(Ok(())) => format!("{verb}: {}", id.short()),
            Some(Err(failure)) => failure.message(),
            None => "it has ended".to_owned(),
        }
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let [head, table, events, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(3), Constraint::Fill(2), Constraint::Length(1)]).areas(frame.area());
        let (cpu, memory): (f64, u64) =
            self.rows.iter().fold((0.0, 0), |(cpu, memory), row| (cpu + row.cpu_percent, memory + row.memory_bytes));
        let title = format!(" cofferdam: {} sandboxes, CPU {cpu:.0}%, memory {} ", self.rows.len(), size(memory));
        frame.render_widget(Line::from(title).bold(), head);
        let rows: Vec<Row<'_>> = self.rows.iter().map(|row| self.row(row)).collect();
        let widths = [12, 20, 8, 7, 11, 10, 6].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
        let names = Row::new(["ID", "NAME", "STATE", "CPU", "MEMORY", "PROCESSES", "AGE", "COMMAND"]).style(Style::new().bold());
        let shown = Table::new(rows, widths).header(names).row_highlight_style(Style::new().reversed());
        frame.render_stateful_widget(shown, table, &mut self.state);
        let room = usize::from(events.height.saturating_sub(1));
        let lines: Vec<Line<'_>> = self.events.iter().rev().take(room).rev().map(event_line).collect();
        let block = Block::new().title(Line::from(" decisions and events ").bold());
        frame.render_widget(Paragraph::new(lines).block(block), events);
        let text = match &self.asked {
            Some((id, _, verb)) => format!(" {verb} {}? y, or any other key ", id.short()),
            None if self.message.is_empty() => HELP.to_owned(),
            None => format!(" {} ", printable(&self.message)),
        };
        frame.render_widget(Line::from(text).reversed(), foot);
    }

    fn row(&self, sample: &Sample) -> Row<'static> {
        let record = self.records.get(&sample.id);
        let paused = self.paused.get(&sample.id).copied().unwrap_or(false);
        Row::new([
            sample.id.short(),
            sample.name.as_ref().map(ToString::to_string).unwrap_or_default(),
            if paused { "paused" } else { "running" }.to_owned(),
            format!("{:.1}%", sample.cpu_percent),
            size(sample.memory_bytes),
            sample.pids.to_string(),
            record.map(|record| age(record.created_at, now())).unwrap_or_default(),
            record.map(|record| printable(&record.command.join(" "))).unwrap_or_default(),
        ])
    }
}

fn event_line(event: &Event) -> Line<'static> {
    let inner = &event.event;
    let subject = inner.subject.split_once(':').map_or(inner.subject.as_str(), |(_, id)| id.get(..12).unwrap_or(id));
    let text = |key: &str| inner.data.get(key).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let to = text("host").map(|host| text("port").map_or_else(|| host.clone(), |port| format!("{host}:{port}"))).unwrap_or_default();
    let reason = inner.reason.as_deref().unwrap_or_default();
    let line = Line::from(printable(&format!("{:.19}  {subject}  {}  {to}  {reason}", inner.time.to_string(), inner.kind)));
    let refused = inner.kind.contains("denied") || inner.kind.contains("refused") || inner.kind.contains("blocked");
    if refused { line.red() } else { line }
}
