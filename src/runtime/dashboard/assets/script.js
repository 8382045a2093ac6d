// Keeps an open page true: times go on, and regions marked `data-live` are read again with the page they stand on.
// Pages work without it.

const everyMs = 3000
const body = document.body
const openedAt = performance.now()
// The server's clock: that of the reader's machine may be wrong.
let serverNow = Number(body.dataset.now)
let readAt = openedAt

const now = () => serverNow + performance.now() - readAt

function duration(ms) {
  const seconds = Math.floor(ms / 1000)
  if (seconds < 60) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min${seconds % 60 === 0 || minutes >= 10 ? '' : ` ${seconds % 60} s`}`
  const hours = Math.floor(minutes / 60)
  if (hours < 24) return `${hours} h${minutes % 60 === 0 ? '' : ` ${minutes % 60} min`}`
  const days = Math.floor(hours / 24)
  return `${days} d${hours % 24 === 0 ? '' : ` ${hours % 24} h`}`
}

function relative(ms) {
  if (Math.abs(ms) < 1000) return 'now'
  return ms < 0 ? `${duration(-ms)} ago` : `in ${duration(ms)}`
}

function turnClocks() {
  for (const time of document.querySelectorAll('time[datetime]:not([data-absolute])'))
    time.textContent = relative(Date.parse(time.dateTime) - now())
}

// A region in which somebody types, chooses or reads a menu is left alone.
function isInUse(region) {
  return (
    region.contains(document.activeElement) ||
    region.querySelector('details[open], input:checked') !== null ||
    (document.getSelection()?.isCollapsed === false && region.contains(document.getSelection().anchorNode))
  )
}

function takeOver(page) {
  for (const region of document.querySelectorAll('[data-live]')) {
    const fresh = page.querySelector(`[data-live="${region.dataset.live}"]`)
    if (fresh && fresh.innerHTML !== region.innerHTML && !isInUse(region))
      region.replaceChildren(...fresh.childNodes)
  }
}

const state = document.querySelector('[data-live-state]')
function say(text) {
  if (state && state.textContent !== text) state.textContent = text
}

async function refresh() {
  const answer = await fetch(location.href, { headers: { accept: 'text/html' }, redirect: 'error' })
  if (answer.status === 401) return say('You are logged out. Load the page again to log in.')
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`)
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html')
  serverNow = Number(page.body.dataset.now)
  readAt = performance.now()
  takeOver(page)
  say('')
}

let paused = false
function addPause() {
  const button = document.createElement('button')
  button.type = 'button'
  button.className = 'quiet'
  button.setAttribute('aria-pressed', 'false')
  button.textContent = 'Pause updates'
  button.addEventListener('click', () => {
    paused = !paused
    button.setAttribute('aria-pressed', String(paused))
  })
  state?.before(button)
}

let busy = false
async function tick() {
  turnClocks()
  if (busy || paused || document.hidden || performance.now() - readAt < everyMs) return
  busy = true
  try {
    await refresh()
  } catch (error) {
    const time = new Date(serverNow).toISOString().slice(11, 19)
    say(`Not updated since ${time} UTC: ${error.message}`)
  } finally {
    busy = false
  }
}

if (body.dataset.livePage === undefined) setInterval(turnClocks, 1000)
else {
  addPause()
  setInterval(tick, 1000)
}
